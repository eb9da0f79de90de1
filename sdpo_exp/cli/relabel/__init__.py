"""Ordering pairs anew by scorers."""
