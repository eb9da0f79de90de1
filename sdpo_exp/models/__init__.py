"""Backbones, forward processes and reference providers."""
