"""What is done with sampled networks."""
