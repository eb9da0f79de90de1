"""The encoder on a tiny folder in the released layout."""

import numpy as np
import pytest
import torch
from PIL import Image

from sdpo_exp.errors import UserError
from sdpo_exp.models.ovis_text import OvisTextEncoder
from sdpo_exp.models.ovis_text.encoder import mark_row
from sdpo_exp.models.ovis_text.image_rows import blank, image_rows
from sdpo_exp.models.ovis_text.settings import read_settings
from tests.models.ovis_text import tiny

SIZE = (64, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("ovis"))


@pytest.fixture(scope="module")
def encoder(folder):
    return OvisTextEncoder.from_folder(folder, torch.float32)


def picture(seed: int) -> Image.Image:
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (64, 96, 3), dtype=np.uint8))


def inputs(encoder, *arguments):
    """The language model's input rows for each prompt."""
    seen = []
    hook = encoder.llm.model.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["inputs_embeds"][0]), with_kwargs=True
    )
    encoder.encode(*arguments)
    hook.remove()
    return seen


def test_the_unconditional_condition_of_a_blank(encoder):
    (condition,) = encoder.encode([""], SIZE, "unconditional")
    # 6 of the turn's head, start, 4 visual, end, 19 of the text, 2 of the turn's end
    assert condition.shape == (33, 64)
    assert condition.dtype == torch.float32
    assert condition.shape[1] == encoder.width


@pytest.mark.parametrize(
    ("prompt", "kind", "length"), [("a cat", "t2i", 14 + 123 + 5), (" red ", "edit", 14 + 1 + 3)]
)
def test_lengths_count_bytes_around_the_picture(encoder, prompt, kind, length):
    (condition,) = encoder.encode([prompt], SIZE, kind)
    assert len(condition) == length


def test_the_halves_are_the_last_layers_output_normed_and_its_input(encoder):
    seen = {}
    model = encoder.llm.model
    hooks = [
        model.norm.register_forward_hook(lambda *parts: seen.update(left=parts[-1])),
        model.layers[-1].register_forward_pre_hook(lambda _, given: seen.update(right=given[0])),
    ]
    (condition,) = encoder.encode(["a cat"], SIZE, "t2i")
    for hook in hooks:
        hook.remove()
    assert torch.equal(condition[:, :32], seen["left"][0])
    assert torch.equal(condition[:, 32:], seen["right"][0])


def test_the_input_rows_are_words_marks_and_soft_visual_words(encoder):
    (rows,) = inputs(encoder, [""], SIZE, "unconditional")
    words, table = encoder.llm.model.embed_tokens.weight, encoder.vte.weight
    head = [257, *b"user\n"]
    tail = [*b"\nGenerate an image.", 258, *b"\n"]
    visual = encoder.visual_tokenizer(*image_rows(blank(*SIZE), encoder.settings.rows))
    soft = torch.stack([sum(row[i] * table[i] for i in range(64)) for row in visual])
    expected = torch.cat([words[head], table[59:60], soft, table[60:61], words[tail]])
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)


def test_marks_take_the_rows_of_the_release():
    rows = [mark_row(mark, 65_536) for mark in (-301, -302, -303, -304)]
    assert rows == [65_531, 65_532, 65_533, 65_534]


def test_a_long_sequence_keeps_its_last_rows(encoder, tmp_path):
    short = tiny.settings() | {"multimodal_max_length": 20}
    cut = OvisTextEncoder.from_folder(tiny.write(tmp_path, config=short), torch.float32)
    (whole,), (rest,) = (inputs(one, [""], SIZE, "unconditional") for one in (encoder, cut))
    assert torch.equal(rest, whole[-20:])
    assert cut.encode([""], SIZE, "unconditional")[0].shape == (20, 64)


def test_a_prompt_is_encoded_alike_in_any_company_and_order(encoder):
    prompts = ["a cat", "", "two dogs on a long, long road"]
    together = encoder.encode(prompts, SIZE, "t2i")
    turned = encoder.encode(prompts[::-1], SIZE, "t2i")[::-1]
    alone = [encoder.encode([prompt], SIZE, "t2i")[0] for prompt in prompts]
    for one, other, single in zip(together, turned, alone, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, single)


def test_two_loads_agree_and_shards_do_not_matter(encoder, tmp_path):
    single = OvisTextEncoder.from_folder(tiny.write(tmp_path, shards=1), torch.float32)
    for one, other in zip(
        encoder.encode(["a cat"], SIZE, "t2i"), single.encode(["a cat"], SIZE, "t2i"), strict=True
    ):
        assert torch.equal(one, other)


def test_each_prompt_has_its_own_picture(encoder):
    pictures = [picture(0), picture(1)]
    first, second = encoder.encode(["red", "red"], pictures, "edit")
    assert not torch.equal(first, second)
    assert torch.equal(first[:7], second[:7])  # causal: nothing before the picture knows it
    (alone,) = encoder.encode(["red"], pictures[1:], "edit")
    assert torch.equal(second, alone)


def test_a_blank_may_be_given_as_a_picture(encoder):
    by_size = encoder.encode([""], (90, 64), "unconditional")
    by_picture = encoder.encode([""], [blank(90, 64)], "unconditional")
    assert torch.equal(by_size[0], by_picture[0])


def test_the_length_depends_on_the_aspect_ratio(encoder):
    square, wide = (encoder.encode(["a"], size, "t2i")[0] for size in ((64, 64), (64, 128)))
    assert len(wide) > len(square)


def test_pictures_and_prompts_must_match(encoder):
    with pytest.raises(ValueError, match="1 pictures for 2 prompts"):
        encoder.encode(["a", "b"], [picture(0)], "edit")
    assert encoder.encode([], SIZE, "t2i") == []


def test_a_placeholder_is_refused(encoder):
    with pytest.raises(UserError, match="<image>"):
        encoder.encode(["an <image>"], SIZE, "t2i")


def test_autocast_around_it_changes_nothing(encoder):
    plain = encoder.encode(["a cat"], SIZE, "t2i")[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode(["a cat"], SIZE, "t2i")[0], plain)


def test_half_precision_and_its_angles(folder, encoder):
    half = OvisTextEncoder.from_folder(folder, torch.bfloat16)
    exact = OvisTextEncoder.from_folder(folder, torch.bfloat16, angle_dtype=torch.float32)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    frequencies = [one.llm.model.rotary_emb.inv_freq.float() for one in (half, exact, encoder)]
    assert torch.equal(frequencies[0], frequencies[2].bfloat16().float())
    assert torch.equal(frequencies[1], frequencies[2])
    condition, close = (one.encode(["a cat"], SIZE, "t2i")[0] for one in (exact, encoder))
    assert condition.dtype == torch.float32
    assert 0 < (condition - close).norm() / close.norm() < 0.05


def test_the_rotation_base_of_the_folder_counts(encoder):
    frequencies = encoder.llm.model.rotary_emb.inv_freq
    torch.testing.assert_close(frequencies, 1e6 ** (-torch.arange(8) / 8))


def test_nothing_is_trained(encoder):
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.training
    assert not encoder.encode(["a"], SIZE, "t2i")[0].requires_grad


def test_code_in_the_folder_is_not_run(tmp_path):
    mapped = {"AutoConfig": "bad.Config", "AutoModelForCausalLM": "bad.Model"}
    path = tiny.write(tmp_path, config=tiny.settings() | {"auto_map": mapped})
    (path / "bad.py").write_text("raise SystemExit('run')")
    assert OvisTextEncoder.from_folder(path).encode([""], SIZE, "unconditional")


def test_the_release_has_these_parts(tmp_path):
    """Parameters of the full size, without holding them."""
    full = tiny.settings()
    full["llm_config"] |= {
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
    }  # fmt: skip
    visual = full["visual_tokenizer_config"] | {"vocab_size": 65_536}
    visual["backbone_config"] |= {
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24,
        "num_attention_heads": 8, "image_size": 448,
    }  # fmt: skip
    settings = read_settings(
        tiny.write(tmp_path, config=full | {"visual_tokenizer_config": visual})
    )
    with torch.device("meta"):
        whole = OvisTextEncoder(settings, tokenizer=None)
    counts = [
        sum(parameter.numel() for parameter in part.parameters())
        for part in (whole.llm, whole.visual_tokenizer, whole.vte)
    ]
    assert counts == [1_720_574_976, 309_984_256 + 268_550_136, 134_217_728]
