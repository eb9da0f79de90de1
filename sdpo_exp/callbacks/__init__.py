"""Callbacks: they read step records and log; they never change outputs."""
