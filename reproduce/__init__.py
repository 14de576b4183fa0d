"""The published results: `python -m reproduce` lists the commands."""
