"""Settings of every test: one thread, no subnormals, repeatable Hypothesis examples."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
torch.set_flush_denormal(True)
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repeatable")
