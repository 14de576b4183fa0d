"""Flags and errors of the commands."""
