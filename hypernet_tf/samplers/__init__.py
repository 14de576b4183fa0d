"""The systems that make weights."""
