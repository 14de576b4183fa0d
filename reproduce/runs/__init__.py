"""The folder of a run, and a run as a command line."""
