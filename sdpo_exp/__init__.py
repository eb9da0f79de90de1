"""Preference alignment of text-to-image diffusion models with a winner-preserving safeguard.

The top level stays free of torch: `python -m sdpo_exp --help` and every configuration error
answer before a heavy import.
"""

__version__ = "0.1.0"
