"""Pairs from rankings."""
