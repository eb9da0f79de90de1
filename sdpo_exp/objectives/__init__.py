"""Preference objectives: pure functions of `PairErrors`, one file each."""
