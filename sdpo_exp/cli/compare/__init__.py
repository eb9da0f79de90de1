"""Comparing models by the scores of the same prompts."""
