"""Frame accuracy and word errors, with their intervals: pure functions on numbers."""
