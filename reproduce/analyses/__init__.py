"""Analyses of a run, one file each."""
