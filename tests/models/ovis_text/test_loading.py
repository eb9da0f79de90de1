"""Folders that are not whole, or not of Ovis-U1, are refused by name."""

import json

import pytest
import torch

from sdpo_exp.errors import UserError
from sdpo_exp.models.ovis_text import OvisTextEncoder
from sdpo_exp.models.ovis_text.image_rows import CLIP_MEAN
from sdpo_exp.models.ovis_text.settings import read_settings
from sdpo_exp.models.stored_tensors import files_of
from tests.models.ovis_text import tiny


def load(folder):
    return OvisTextEncoder.from_folder(folder, torch.float32)


def refused(folder) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    return str(caught.value)


def test_the_tiny_folder_has_the_tensors_of_the_encoder(tmp_path):
    encoder = load(tiny.write(tmp_path))
    state = encoder.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == tiny.shapes()
    assert sum(tensor.numel() for tensor in state.values()) == 66_296
    for name, tensor in tiny.weights().items():
        assert torch.equal(state[name], tensor)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "name",
    [
        "llm.model.layers.1.self_attn.q_norm.weight",
        "visual_tokenizer.backbone.trunk.post_trunk_norm.weight",
        "visual_tokenizer.head.1.bias",
        "vte.weight",
    ],
)
def test_a_missing_tensor_is_named(tmp_path, name, shards):
    tensors = tiny.weights()
    del tensors[name]
    message = refused(tiny.write(tmp_path, tensors, shards=shards))
    assert f"1 missing ({name})" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    "name",
    [
        "llm.model.layers.2.input_layernorm.weight",
        "visual_tokenizer.head.0.bias",
        "visual_tokenizer.backbone.trunk.blocks.0.attn.qkv.bias",
        "vte.bias",
    ],
)
def test_an_unknown_tensor_is_named(tmp_path, name):
    message = refused(tiny.write(tmp_path, tiny.weights() | {name: torch.zeros(3)}))
    assert f"1 unknown ({name})" in message


def test_a_tensor_of_another_shape_is_named(tmp_path):
    message = refused(tiny.write(tmp_path, tiny.weights() | {"vte.weight": torch.zeros(65, 32)}))
    assert "vte.weight (65, 32) instead of (64, 32)" in message


def test_a_head_of_the_language_model_is_let_lie(tmp_path):
    head = {"llm.lm_head.weight": torch.zeros(300, 32)}
    assert load(tiny.write(tmp_path, tiny.weights() | head))


def test_a_shard_that_is_not_there_is_named(tmp_path):
    tiny.write(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors: is missing" in refused(tmp_path)


def test_a_shard_without_what_the_index_says_is_named(tmp_path):
    index = tiny.write(tmp_path) / "model.safetensors.index.json"
    table = json.loads(index.read_text())["weight_map"]
    other = dict.fromkeys(table, "model-00001-of-00002.safetensors")
    index.write_text(json.dumps({"weight_map": other}))
    assert "though model.safetensors.index.json says so" in refused(tmp_path)


def test_of_both_layouts_the_single_file_is_taken_by_all(tmp_path):
    tiny.write(tmp_path)
    tiny.write(tmp_path, shards=1)
    assert set(files_of(tmp_path).values()) == {tmp_path / "model.safetensors"}


def test_no_weights_and_broken_weights(tmp_path):
    file = tiny.write(tmp_path, shards=1) / "model.safetensors"
    file.write_bytes(b"not weights")
    assert "model.safetensors: cannot be read" in refused(tmp_path)
    file.unlink()
    assert "has neither model.safetensors nor model.safetensors.index.json" in refused(tmp_path)


def test_no_configuration(tmp_path):
    assert "config.json: cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("llm_config",), None, "lacks llm_config"),
        (("llm_config", "model_type"), "llama", "'llama', not of 'qwen3'"),
        (("visual_tokenizer_config", "backbone_config"), None, "lacks backbone_config"),
        (("visual_tokenizer_config", "tokenize_function"), "st_argmax", "only 'softmax' works"),
        (
            ("visual_tokenizer_config", "backbone_config", "fullatt_block_indexes"),
            [3],
            "window attention",
        ),
        (("visual_tokenizer_config", "backbone_config", "disable_rope"), True, "disable_rope=True"),
        (
            ("visual_tokenizer_config", "backbone_config", "interpolate_pe_method"),
            "one_dim",
            "interpolate_pe_method='one_dim'",
        ),
        (("llm_config", "num_hidden_layers"), "many", "describes no model"),
    ],
)
def test_what_the_encoder_does_not_do_is_refused(tmp_path, path, value, told):
    config = tiny.settings()
    section = config
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    message = refused(tiny.write(tmp_path, config=config))
    assert told in message
    assert "config.json" in message


@pytest.mark.parametrize("key", ["vocab_size", "hidden_stride", "num_hidden_layers"])
def test_a_number_that_is_none_is_refused(tmp_path, key):
    config = tiny.settings()
    visual = config["visual_tokenizer_config"]
    (visual if key in visual else visual["backbone_config"])[key] = "many"
    assert "'many'" in refused(tiny.write(tmp_path, config=config))


def test_another_tokenizer_is_refused(tmp_path):
    tiny.write(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("<|im_start|>", "<|begin|>"))
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("<|im_start|>", "<|begin|>"))
    assert "lacks <|im_start|>" in refused(tmp_path)


def test_the_older_files_of_a_tokenizer_will_do(tmp_path):
    folder = tiny.write(tmp_path)
    expected = load(folder).encode(["a <think> cat"], (64, 64), "t2i")[0]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tiny.write_older_tokenizer(folder)
    assert torch.equal(load(folder).encode(["a <think> cat"], (64, 64), "t2i")[0], expected)


def test_no_tokenizer(tmp_path):
    tiny.write(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    assert str(tmp_path) in refused(tmp_path)


def test_settings_of_the_preprocessor_speak_first(tmp_path):
    tiny.write(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"min_pixels": 10_000, "image_mean": [0.5, 0.5, 0.5]}))
    rows = read_settings(tmp_path).rows
    assert rows.bounds == (10_000, 112**2, 28)
    assert rows.mean == (0.5, 0.5, 0.5)
    file.unlink()
    rows = read_settings(tmp_path).rows
    assert rows.bounds == (56**2, 112**2, 28)
    assert rows.mean == CLIP_MEAN


def test_numbers_that_the_folder_leaves_out_are_the_release_s(tmp_path):
    config = {
        "llm_config": {"model_type": "qwen3"},
        "visual_tokenizer_config": {"backbone_config": {"model_type": "aimv2"}},
    }
    tiny.write(tmp_path, config=config)
    (tmp_path / "preprocessor_config.json").unlink()
    settings = read_settings(tmp_path)
    assert settings.longest == 4496
    assert settings.vocabulary == 65_536
    assert settings.rows.bounds == (448**2, 2_408_448, 28)
    assert settings.vit == (1024, 2816, 24, 8, 3, 448, 14, 1e-5, False, False, 2)
