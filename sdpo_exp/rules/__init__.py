"""Rival safeguards: lambda from parameter gradients, from real updates, from what was gained."""
