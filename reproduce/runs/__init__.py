"""One run: its folder, its training, its evaluation."""
