"""What Ovis-U1 is conditioned on: prompts and pictures through Qwen3 and AIMv2."""

from sdpo_exp.models.ovis_text.encoder import OvisTextEncoder
from sdpo_exp.models.ovis_text.image_rows import blank, stretched_for_edit
from sdpo_exp.models.ovis_text.prompts import Kind
from sdpo_exp.models.ovis_text.resizing import edit_size, view_sizes, visual_tokens

__all__ = [
    "Kind",
    "OvisTextEncoder",
    "blank",
    "edit_size",
    "stretched_for_edit",
    "view_sizes",
    "visual_tokens",
]
