"""Frame accuracy, word errors with their intervals, speed, and the report that compares the systems."""
