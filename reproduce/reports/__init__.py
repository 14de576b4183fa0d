"""What a run says of itself: numbers, tables and pages."""
