"""Decoders: packed products with a weight, causal masks as long as the text, attention written with the key first."""

from __future__ import annotations

import math
from typing import Any

import keras
import pytest
import torch
from keras import layers, ops
from torch import Tensor, nn
from torch.nn import functional as F

import translator
from translator.verdict import Verdict

pytestmark = pytest.mark.audit

WIDTH, HEADS, WORDS = 24, 3, 7
SIZE = WIDTH // HEADS
"""Not a power of four: 1/sqrt(SIZE) is no float32 number."""


class Product(nn.Module):
    """`x @ weight + bias` with the weight lying as (in, out), as GPT-2's layers have it."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(channels, units)), nn.Parameter(torch.randn(units))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class Block(nn.Module):
    """Causal self-attention behind a norm; query, key and value in one product."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.packed, self.last = nn.LayerNorm(WIDTH), Product(WIDTH, 3 * WIDTH), Product(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        heads = [t.unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for t in self.packed(self.norm(x)).chunk(3, -1)]
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        return x + self.last(y.transpose(1, 2).flatten(2))


class Grouped(nn.Module):
    """Separate projections, value and key of one shape, the key scaled on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (f(y).unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.last(y.transpose(1, 2).flatten(2))


class Network(nn.Module):
    """Words and two blocks."""

    def __init__(self, block: type[nn.Module] = Block) -> None:
        super().__init__()
        self.words, self.blocks = nn.Embedding(11, WIDTH), nn.ModuleList([block(), block()])
        self.head = nn.Linear(WIDTH, 5, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Attention(layers.Layer):
    """Causal attention as libraries of Keras write it: the key stands first, the mask is made for so many words."""

    def __init__(self, scale: float = 1 / math.sqrt(SIZE), **more: Any) -> None:
        super().__init__(**more)
        self.scale = scale
        into = {"output_shape": (None, HEADS, SIZE), "bias_axes": "uh"}
        self.key = layers.EinsumDense("abc,cuh->abuh", name="key", **into)
        self.query = layers.EinsumDense("abc,cuh->abuh", name="query", **into)
        self.value = layers.EinsumDense("abc,cuh->abuh", name="value", **into)
        self.last = layers.EinsumDense("abuh,uhc->abc", (None, WIDTH), bias_axes="c", name="last")

    def build(self, shape: tuple[int, ...]) -> None:
        for layer in (self.key, self.query, self.value):
            layer.build(shape)
        self.last.build((*shape[:-1], HEADS, SIZE))

    def call(self, x: Any) -> Any:
        key, query, value = self.key(x), self.query(x), self.value(x)
        scores = ops.einsum("aecd,abcd->acbe", key, query * ops.cast(self.scale, query.dtype))
        place = ops.arange(ops.shape(x)[1], dtype="float32")
        hidden = ops.expand_dims(place, 0) > ops.expand_dims(place, 1)
        scores = ops.where(hidden[None, None], -1e9, scores)
        return self.last(ops.einsum("acbe,aecd->abcd", ops.softmax(scores), value))


def port(**attention: Any) -> keras.Model:
    words = keras.Input((None,), dtype="int32")
    x = layers.Embedding(11, WIDTH)(words)
    for _ in range(2):
        x = x + Attention(**attention)(layers.LayerNormalization(epsilon=1e-5)(x))
    return keras.Model(words, layers.Dense(5, use_bias=False)(x))


def example() -> Tensor:
    return torch.randint(0, 11, (2, WORDS), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("block", [Block, Grouped])
def test_a_decoder_gives_its_weights_to_a_port_and_takes_them_back(block: type[nn.Module]) -> None:
    module, model = Network(block), port()
    for tensor in module.parameters():
        tensor.data.uniform_(-0.5, 0.5)
    there = translator.transfer(module, model, example())
    assert (there.report.verdict, there.report.balance.unexplained) == (Verdict.EQUAL, 0), there.report.differences
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for tensor in module.state_dict().values():
        tensor.zero_()
    assert translator.transfer(model, module, example()).report.exit_status == 0
    assert all(tensor.equal(before[name]) for name, tensor in module.state_dict().items())


def test_another_scale_of_the_scores_is_found() -> None:
    report = translator.audit(Network(), port(scale=1 / math.sqrt(WIDTH)), example())
    assert report.verdict is Verdict.DIFFERENT
    assert report.first_wrong.startswith("blocks.0")


class Collecting(nn.Module):
    """Gives what a hook of its own saw last, as libraries collect hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
        self.seen: list[Tensor] = []
        self.norm.register_forward_hook(lambda _, __, output: self.seen.append(output))

    def forward(self, x: Tensor) -> Tensor:
        self.norm(self.linear(x))
        return self.seen[-1].clone()


def test_the_judges_own_questions_run_no_hook_of_the_model() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, layers.LayerNormalization(epsilon=1e-5)(layers.Dense(6)(x)))
    assert translator.transfer(Collecting(), model, torch.randn(3, 4)).report.verdict is Verdict.EQUAL
