"""What other toolkits read, and what is read from them."""
