"""Training from a command line: one run, resuming it, a sweep of runs, what they leave."""
