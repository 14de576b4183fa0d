"""A run from training to analyses, and studies of several runs."""
