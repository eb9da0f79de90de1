"""The LightningModule and what belongs to it: gradients, precision, memory, what is saved."""

from sdpo_exp.training.module import PreferenceModule

__all__ = ["PreferenceModule"]
