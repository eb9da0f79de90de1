"""Where a sweep's cells run (processes, SLURM, Ray), and a sweeper that chooses them (Optuna).

Plugins of Hydra on the libraries themselves; none of those is imported before it is used.
"""
