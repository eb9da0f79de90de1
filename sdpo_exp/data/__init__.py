"""Pair sources, the step-exact sampler and the datamodule."""
