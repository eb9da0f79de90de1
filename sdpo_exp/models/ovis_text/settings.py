"""What a folder of Ovis-U1 says about its text side: config.json and preprocessor_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from sdpo_exp.errors import UserError
from sdpo_exp.models import checkpoint_folder
from sdpo_exp.models.ovis_text.image_rows import CLIP_MEAN, CLIP_STD, RowFormat
from sdpo_exp.models.ovis_text.resizing import ViewBounds
from sdpo_exp.models.ovis_text.vit_blocks import ViTConfig

_LONGEST = 4496
# What the model's class can also do, and the released configuration does not ask for.
_REQUIRED: dict[str, Any] = {
    "preserve_original_pe": True,
    "interpolate_pe_method": "two_dim",
    "disable_rope": False,
    "temporal_patch_size": 1,
}


class TextSettings(NamedTuple):
    """All that shapes the condition.

    Args:
        llm: keyword arguments of the language model's configuration.
        vit: shape of the vision transformer.
        vocabulary: rows of the visual embedding table.
        longest: rows of a condition at most.
        rows: how pixels become rows.
    """

    llm: dict[str, Any]
    vit: ViTConfig
    vocabulary: int
    longest: int
    rows: RowFormat


def read_settings(folder: Path) -> TextSettings:
    """The settings of a model's folder.

    Raises:
        UserError: a file is missing or broken, or asks for what this encoder does not do.
    """
    file = folder / "config.json"
    content = checkpoint_folder.read_json(file)
    llm, visual = (
        _section(content, "llm_config", file),
        _section(content, "visual_tokenizer_config", file),
    )
    backbone = _section(visual, "backbone_config", file)
    if llm.get("model_type") != "qwen3":
        raise UserError(f"{file}: llm_config is of {llm.get('model_type')!r}, not of 'qwen3'")
    try:
        _check_visual(visual, backbone, file)
        return _parsed(folder, content, llm, visual)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder}: a number of its configuration is none ({error})") from None


def _parsed(
    folder: Path, content: dict[str, Any], llm: dict[str, Any], visual: dict[str, Any]
) -> TextSettings:
    backbone = visual["backbone_config"]
    known = {key: backbone[key] for key in ViTConfig._fields if key in backbone}
    stride = int(visual.get("hidden_stride", backbone.get("hidden_stride", 2)))
    vit = ViTConfig(**known)._replace(hidden_stride=stride)
    return TextSettings(
        llm=_llm_arguments(llm),
        vit=vit,
        vocabulary=int(visual.get("vocab_size", 65_536)),
        longest=int(content.get("multimodal_max_length", _LONGEST)),
        rows=_row_format(folder, vit, backbone),
    )


def _section(content: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    section = content.get(key)
    if not isinstance(section, dict):
        raise UserError(f"{file}: lacks {key}; is this a folder of Ovis-U1?")
    return section


def _check_visual(visual: dict[str, Any], backbone: dict[str, Any], file: Path) -> None:
    for key, value in _REQUIRED.items():
        if backbone.get(key, value) != value:
            raise UserError(
                f"{file}: backbone_config.{key}={backbone[key]!r}; only {value!r} works"
            )
    layers = set(range(int(backbone.get("num_hidden_layers", ViTConfig().num_hidden_layers))))
    full = backbone.get("fullatt_block_indexes")
    if full is not None and not layers <= set(full):
        raise UserError(
            f"{file}: backbone_config.fullatt_block_indexes={full!r} asks for window attention, "
            "which Ovis-U1's release does without, and this encoder too"
        )
    if visual.get("tokenize_function", "softmax") != "softmax":
        raise UserError(
            f"{file}: visual_tokenizer_config.tokenize_function="
            f"{visual['tokenize_function']!r}; only 'softmax' works"
        )


def _llm_arguments(llm: dict[str, Any]) -> dict[str, Any]:
    """Without what says how the weights were once loaded."""
    of_loading = ("model_type", "torch_dtype", "dtype", "architectures", "transformers_version")
    return {
        key: value
        for key, value in llm.items()
        if key not in of_loading and not key.startswith("_")
    }


def _row_format(folder: Path, vit: ViTConfig, backbone: dict[str, Any]) -> RowFormat:
    """Of preprocessor_config.json, which speaks before the ViT's own configuration."""
    file = folder / "preprocessor_config.json"
    chosen = checkpoint_folder.read_json(file) if file.is_file() else {}
    default = ViewBounds()
    bounds = ViewBounds(
        lowest=int(chosen.get("min_pixels", backbone.get("min_pixels", default.lowest))),
        highest=int(chosen.get("max_pixels", backbone.get("max_pixels", default.highest))),
        factor=vit.patch_size * vit.hidden_stride,
    )
    mean, std = chosen.get("image_mean", CLIP_MEAN), chosen.get("image_std", CLIP_STD)
    return RowFormat(vit.patch_size, vit.hidden_stride, bounds, tuple(mean), tuple(std))
