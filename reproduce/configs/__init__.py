"""What can be run: configurations, methods, targets, published numbers."""
