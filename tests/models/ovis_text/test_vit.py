"""AIMv2 in plain torch: counts, names, and its parts against slower words for the same thing."""

import pytest
import torch
import torch.nn.functional as F

from sdpo_exp.models.ovis_text.vit import AIMv2, Preprocessor, VisualTokenizer, grid_places
from sdpo_exp.models.ovis_text.vit_blocks import (
    Attention,
    Block,
    RMSNorm,
    SwiGLU,
    ViTConfig,
    rotated,
    rotation,
)

SMALL = ViTConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=56
)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    draw = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.3
    return module.eval().requires_grad_(False)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_full_size_has_the_parameters_of_the_release():
    with torch.device("meta"):
        whole = VisualTokenizer(ViTConfig(), 65_536)
    assert count(whole.backbone) == 309_984_256
    assert count(whole.head) == 268_550_136
    assert not whole.state_dict().keys() - dict(whole.named_parameters()).keys()


def test_the_names_of_a_block():
    assert set(Block(SMALL).state_dict()) == {
        "attn.qkv.weight", "attn.proj.weight", "norm_1.weight", "norm_2.weight",
        "mlp.fc1.weight", "mlp.fc2.weight", "mlp.fc3.weight",
    }  # fmt: skip


def test_places_follow_the_rows_two_by_two():
    y, x = grid_places(4, 6, 2)
    expected = [
        (top + dy, left + dx)
        for top in (0, 2)
        for left in (0, 2, 4)
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    assert list(zip(y.tolist(), x.tolist(), strict=True)) == expected


def test_rotation_is_a_complex_product():
    y, x = torch.tensor([0, 3, 31]), torch.tensor([0, 5, 2])
    heads = randn(3, 2, 16).double()
    frequencies = 10000 ** (-torch.arange(4, dtype=torch.float64) / 4)
    angles = torch.cat([y[:, None] * frequencies, x[:, None] * frequencies], dim=1)[:, None]
    numbers = torch.complex(heads[..., :8], heads[..., 8:]) * torch.polar(
        torch.ones_like(angles), angles
    )
    expected = torch.cat([numbers.real, numbers.imag], dim=-1)
    torch.testing.assert_close(rotated(heads, rotation(y, x, 16)), expected, atol=1e-5, rtol=0)


def test_scores_depend_on_the_distance_alone():
    q, k = randn(1, 1, 16), randn(1, 1, 16) * 2
    scores = []
    for shift in (0, 7):
        far = rotation(torch.tensor([2 + shift]), torch.tensor([5 + shift]), 16)
        near = rotation(torch.tensor([1 + shift]), torch.tensor([1 + shift]), 16)
        scores.append((rotated(q, far) * rotated(k, near)).sum())
    torch.testing.assert_close(*scores, atol=1e-4, rtol=0)
    here = rotation(torch.tensor([0]), torch.tensor([0]), 16)
    assert not torch.isclose(scores[0], (rotated(q, here) * rotated(k, here)).sum(), atol=1e-3)


def test_lines_and_columns_have_angles_of_their_own():
    down, right = (
        rotation(torch.tensor([a]), torch.tensor([b]), 16).sin[0, 0] for a, b in ((1, 0), (0, 1))
    )
    assert torch.equal(down[:4], right[4:])
    assert not down[4:].any()
    assert not right[:4].any()


def test_a_half_dtype_rounds_the_angles():
    places = torch.arange(32), torch.arange(32)
    exact, rounded = (rotation(*places, 128, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert rounded.cos.dtype == torch.float32
    assert torch.equal(rounded.cos, rounded.cos.bfloat16().float())
    assert 1e-3 < (exact.cos - rounded.cos).abs().max() < 0.3


def test_attention_is_that_of_each_head():
    attention = randomised(Attention(SMALL))
    x, turn = randn(6, 32), rotation(*grid_places(2, 3, 1), 16)
    q, k, v = (attention.qkv.weight[i * 32 : (i + 1) * 32] @ x.T for i in range(3))
    mixed = []
    for head in range(2):
        part = slice(16 * head, 16 * head + 16)
        one, other = (rotated(rows[part].T[:, None], turn)[:, 0] for rows in (q, k))
        mixed.append((one @ other.T / 4).softmax(-1) @ v[part].T)
    expected = torch.cat(mixed, dim=1) @ attention.proj.weight.T
    torch.testing.assert_close(attention(x, turn), expected, atol=1e-5, rtol=1e-5)


def test_norm_and_mlp():
    norm, mlp, x = randomised(RMSNorm(32, 1e-5)), randomised(SwiGLU(SMALL)), randn(5, 32)
    exact = x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), exact)
    gate, up = x @ mlp.fc1.weight.T, x @ mlp.fc3.weight.T
    expected = (gate * gate.sigmoid() * up) @ mlp.fc2.weight.T
    torch.testing.assert_close(mlp(x), expected, atol=1e-5, rtol=1e-5)


def test_patches_pass_the_convolution():
    entry = randomised(Preprocessor(SMALL)).patchifier
    rows = randn(5, 588)
    windows = entry.proj(rows.reshape(5, 3, 14, 14)).flatten(1)
    torch.testing.assert_close(entry(rows), entry.norm(windows), atol=1e-4, rtol=1e-4)


def test_the_position_table_fits_its_own_grid_and_is_drawn_to_others():
    entry = randomised(Preprocessor(SMALL))
    table = entry.pos_embed.reshape(4, 4, 32)
    torch.testing.assert_close(entry.table((4, 4)), table)
    assert entry.table((6, 2)).shape == (6, 2, 32)
    expected = F.interpolate(table.permute(2, 0, 1)[None], (8, 4), mode="bicubic")[0]
    torch.testing.assert_close(entry.table((8, 4)), expected.permute(1, 2, 0))


def test_positions_are_those_of_the_rows():
    entry, (y, x) = randomised(Preprocessor(SMALL)), grid_places(4, 4, 2)
    rows = randn(16, 588)
    there = entry(rows, y, x, (4, 4)) - entry.patchifier(rows)
    for row, (line, column) in enumerate(zip(y.tolist(), x.tolist(), strict=True)):
        expected = entry.pos_embed[0, 4 * line + column]
        torch.testing.assert_close(there[row], expected, atol=1e-5, rtol=1e-4)


def test_features_are_taken_before_the_last_norm():
    vit, rows = randomised(AIMv2(SMALL)), randn(16, 588)
    before = vit(rows, (1, 4, 4))
    vit.trunk.post_trunk_norm.weight.data.fill_(9.0)
    assert torch.equal(vit(rows, (1, 4, 4)), before)
    seen = []
    vit.trunk.blocks[-1].register_forward_hook(lambda *parts: seen.append(parts[-1]))
    assert torch.equal(vit(rows, (1, 4, 4)), seen[0])


def test_words_are_a_distribution_with_four_empty_columns():
    whole = randomised(VisualTokenizer(SMALL, 64))
    words = whole(randn(24, 588), (1, 4, 6))
    assert words.shape == (6, 64)
    assert not words[:, -4:].any()
    torch.testing.assert_close(words.sum(1), torch.ones(6))


def test_four_neighbouring_rows_make_a_token():
    whole, rows = randomised(VisualTokenizer(SMALL, 64)), randn(16, 588)
    features = whole.backbone(rows, (1, 4, 4))
    logits = F.layer_norm(
        features[4:8].flatten() @ whole.head[0].weight.T,
        (60,), whole.head[1].weight, whole.head[1].bias, 1e-5,
    )  # fmt: skip
    torch.testing.assert_close(whole(rows, (1, 4, 4))[1, :60], logits.softmax(0))


@pytest.mark.parametrize("grid", [(2, 4, 2), (1, 4, 2), (1, 6, 4)])
def test_a_grid_that_does_not_fit_is_an_error(grid):
    with pytest.raises(ValueError, match="grid"):
        AIMv2(SMALL)(randn(16, 588), grid)
