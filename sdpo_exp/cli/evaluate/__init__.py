"""Scoring the images of a prompt set."""
