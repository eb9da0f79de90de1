"""Settings of every test: one thread, no subnormals, repeatable Hypothesis examples."""

import atexit
import os
import shutil
import tempfile

import torch
from hypothesis import settings

torch.set_num_threads(1)
torch.set_flush_denormal(True)
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repeatable")

# What prompt sets were seen is remembered in the user's cache folder: not in the tester's own.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="sdpo_exp_tests_")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
