"""Frozen work done once: what VAE and text encoders make of a training's pairs."""
