"""Measures of predictions: functions of arrays."""
