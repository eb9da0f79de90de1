"""Yak once more: float64 numpy, one head, one token pair and one rotation at a time.

Shares nothing with the package. It follows the description of the network, not the code.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def linear(w: Weights, name: str, x: Array) -> Array:
    bias = w.get(f"{name}.bias", np.zeros(1))
    return x @ w[f"{name}.weight"].T + bias


def turned(vector: Array, position: Array, axes: tuple[int, ...], theta: float) -> Array:
    """One head's channels of one token, each pair as a complex number that is turned."""
    out, start = [], 0
    for place, size in zip(position, axes, strict=True):
        for j in range(size // 2):
            pair = complex(vector[start + 2 * j], vector[start + 2 * j + 1])
            pair *= cmath.exp(1j * place * theta ** (-2 * j / size))
            out += [pair.real, pair.imag]
        start += size
    return np.array(out)


def softmax_attention(q: Array, k: Array, v: Array) -> Array:
    """Of one head: q, k, v (N, h)."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)) @ v


def attention(
    qkv: Array, heads: int, prepare: Callable[[Array, Array], tuple[Array, Array]]
) -> Array:
    """qkv (N, 3 D) -> (N, D), head by head; `prepare` acts on one head's q and k."""
    width = qkv.shape[1] // 3
    size = width // heads
    found = []
    for head in range(heads):
        q, k, v = (qkv[:, part * width + head * size :][:, :size] for part in range(3))
        found.append(softmax_attention(*prepare(q, k), v))
    return np.concatenate(found, axis=1)


def rms(w: Weights, name: str, x: Array) -> Array:
    return x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6) * w[f"{name}.scale"]


class Naive:
    """One batch row of the network with `weights` by their released names."""

    def __init__(
        self, weights: Weights, heads: int, axes: tuple[int, ...], theta: float = 10_000
    ) -> None:
        self.w, self.heads, self.axes, self.theta = weights, heads, axes, theta

    def rotated(self, x: Array, ids: Array) -> Array:
        return np.stack(
            [turned(row, at, self.axes, self.theta) for row, at in zip(x, ids, strict=True)]
        )

    def modulation(self, name: str, vec: Array, count: int) -> list[Array]:
        return np.split(linear(self.w, name, silu(vec)), count)

    def embedded(self, name: str, x: Array) -> Array:
        return linear(self.w, f"{name}.out_layer", silu(linear(self.w, f"{name}.in_layer", x)))

    def time(self, t: float) -> Array:
        angles = [1000 * t * math.exp(-math.log(10_000) * i / 128) for i in range(128)]
        return np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles])

    def refiner(self, txt: Array) -> tuple[Array, Array]:
        w = self.w
        c = linear(w, "txt_in.c_embedder.linear_1", txt.mean(0))
        c = linear(w, "txt_in.c_embedder.linear_2", silu(c))
        rows = linear(w, "txt_in.input_embedder", txt)
        x = np.concatenate([w["txt_in.cls_token"][0], rows])
        for number in range(2):
            name = f"txt_in.individual_token_refiner.blocks.{number}"
            first, second = self.modulation(f"{name}.adaLN_modulation.1", c, 2)
            flat = layer_norm(x) * w[f"{name}.norm1.weight"] + w[f"{name}.norm1.bias"]
            qkv = linear(w, f"{name}.self_attn_qkv", flat)
            found = attention(qkv, 2 * self.heads, lambda q, k: (q, k))
            x = x + first * linear(w, f"{name}.self_attn_proj", found)
            flat = layer_norm(x) * w[f"{name}.norm2.weight"] + w[f"{name}.norm2.bias"]
            inner = silu(linear(w, f"{name}.mlp.fc1", flat))
            x = x + second * linear(w, f"{name}.mlp.fc2", inner)
        return x[1:], x[0]

    def double(
        self, name: str, img: Array, txt: Array, vec: Array, ids: Array
    ) -> tuple[Array, Array]:
        w, size = self.w, len(txt)
        a = self.modulation(f"{name}.img_mod.lin", vec, 9)
        b = self.modulation(f"{name}.txt_mod.lin", vec, 6)
        flat = layer_norm(img)
        of_img = linear(w, f"{name}.img_attn.qkv", (1 + a[1]) * flat + a[0])
        of_txt = linear(w, f"{name}.txt_attn.qkv", (1 + b[1]) * layer_norm(txt) + b[0])

        def normed(kind: str, part: str) -> Callable[[Array], Array]:
            return lambda x: rms(w, f"{name}.{kind}.norm.{part}_norm", x)

        def jointly(part: str, x: Array) -> Array:
            both = [normed("txt_attn", part)(x[:size]), normed("img_attn", part)(x[size:])]
            return self.rotated(np.concatenate(both), ids)

        def singly(part: str, x: Array) -> Array:
            return self.rotated(normed("img_self_attn", part)(x), ids[size:])

        joint = attention(
            np.concatenate([of_txt, of_img]),
            self.heads,
            lambda q, k: (jointly("query", q), jointly("key", k)),
        )
        qkv = linear(w, f"{name}.img_self_attn.qkv", (1 + a[7]) * flat + a[6])
        alone = attention(qkv, self.heads, lambda q, k: (singly("query", q), singly("key", k)))
        img = img + a[2] * linear(w, f"{name}.img_attn.proj", joint[size:])
        img = img + a[8] * linear(w, f"{name}.img_self_attn.proj", alone)
        img = img + a[5] * self.mlp(f"{name}.img_mlp", (1 + a[4]) * layer_norm(img) + a[3])
        txt = txt + b[2] * linear(w, f"{name}.txt_attn.proj", joint[:size])
        txt = txt + b[5] * self.mlp(f"{name}.txt_mlp", (1 + b[4]) * layer_norm(txt) + b[3])
        return img, txt

    def mlp(self, name: str, x: Array) -> Array:
        return linear(self.w, f"{name}.2", gelu(linear(self.w, f"{name}.0", x)))

    def single(self, name: str, x: Array, vec: Array, ids: Array) -> Array:
        w, width = self.w, x.shape[1]
        shift, scale, gate = self.modulation(f"{name}.modulation.lin", vec, 3)
        both = linear(w, f"{name}.linear1", (1 + scale) * layer_norm(x) + shift)

        def placed(part: str, rows: Array) -> Array:
            return self.rotated(rms(w, f"{name}.norm.{part}_norm", rows), ids)

        found = attention(
            both[:, : 3 * width], self.heads, lambda q, k: (placed("query", q), placed("key", k))
        )
        inner = np.concatenate([found, gelu(both[:, 3 * width :])], axis=1)
        return x + gate * linear(w, f"{name}.linear2", inner)

    def forward(
        self, img: Array, img_ids: Array, txt: Array, t: float, depth: int, singles: int
    ) -> Array:
        """img with condition rows appended; all rows come back."""
        ids = np.concatenate([np.zeros((len(txt), 3)), img_ids])
        txt, cls = self.refiner(txt)
        vec = self.embedded("time_in", self.time(t)) + self.embedded("vector_in", cls)
        img = linear(self.w, "img_in", img)
        for i in range(depth):
            img, txt = self.double(f"double_blocks.{i}", img, txt, vec, ids)
        x = np.concatenate([txt, img])
        for i in range(singles):
            x = self.single(f"single_blocks.{i}", x, vec, ids)
        shift, scale = self.modulation("final_layer.adaLN_modulation.1", vec, 2)
        return linear(self.w, "final_layer.linear", (1 + scale) * layer_norm(x[len(txt) :]) + shift)
