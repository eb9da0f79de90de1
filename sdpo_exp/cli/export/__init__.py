"""A run's checkpoint as files that other programs load."""
