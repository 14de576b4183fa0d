"""Speed, memory and accuracy, side by side in one run."""
