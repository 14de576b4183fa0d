"""Analyses of ensembles."""
