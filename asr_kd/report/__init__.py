"""The results of a run as data, figures and a page."""
