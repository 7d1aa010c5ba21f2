"""Linear maps, embeddings and attention in the forms that people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.proving import Case, applied, assert_proven, case

pytestmark = pytest.mark.op

TOKENS, HEADS, IMAGE = (2, 5, 8), (2, 2, 5, 4), (2, 2, 4, 5)
FLAT = (nn.Flatten(), nn.Linear(20, 4))
TAIL = (nn.Flatten(), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 4, bias=False))
CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)


class SelfAttention(nn.Module):
    """nn.MultiheadAttention on one tensor, its weights thrown away or kept."""

    def __init__(self, *, weights: bool = False, mask: torch.Tensor | None = None, **settings: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **settings)  # type: ignore[arg-type]
        self.weights = weights
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, shares = self.attention(x, x, x, need_weights=self.weights, attn_mask=self.mask)
        return y if shares is None else y.sum(-1, keepdim=True) * shares


class CrossAttention(nn.Module):
    """Queries from one tensor, keys and values from two others of their own width."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=7, batch_first=True)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return self.attention(q, k, v)[0]


class Fused(nn.Module):
    """Attention written out, with one linear map for query, key and value."""

    def __init__(self, *, bias: bool = False) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.zeros(2, 5, 5)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * 0.5) @ k.transpose(-2, -1)
        shares = (scores if self.bias is None else scores + self.bias).softmax(-1)
        return self.out((shares @ v).transpose(1, 2).reshape(b, t, 8))


class Masked(nn.Module):
    """torch.nn's encoder and decoder, which ask whether a mask is causal."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.transformer(source, target, tgt_mask=mask)


class Tied(nn.Module):
    """A language model's head that is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(self.embedding(x)))


class TwoUses(nn.Module):
    """One linear map called twice, and its weight once more by itself."""

    def __init__(self, *, bare: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.bare = bare

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(torch.relu(self.linear(x)))
        return F.linear(y, self.linear.weight) if self.bare else y


def dot_product(**settings: Any) -> Callable[..., torch.Tensor]:
    """F.scaled_dot_product_attention with settings, called anew each time, so that a mark on it is seen."""
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **settings)


class ByParameter(nn.Module):
    """A product with a parameter of its own for each place of a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 2, 6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


LINEAR: tuple[Case, ...] = (
    case("Linear", lambda: nn.Linear(8, 3), (2, 8)),
    case("Linear on the last of three axes", lambda: nn.Linear(8, 3), TOKENS),
    case("Linear on the last of four axes", lambda: nn.Linear(4, 3), HEADS),
    case("Linear without bias", lambda: nn.Linear(8, 3, bias=False), TOKENS),
    case("Linear after a flattened image", lambda: nn.Sequential(nn.Conv2d(2, 1, 3, padding=1), *FLAT), IMAGE),
    case("Linear after Dropout after a flattened image", lambda: nn.Sequential(nn.MaxPool2d(2), *TAIL), IMAGE),
    applied("attention to wider values", F.scaled_dot_product_attention, (2, 2, 5, 3), (2, 2, 7, 3), (2, 2, 7, 6)),
    applied(
        "written out, values wider, then flattened",
        lambda q, k, v: ((q @ k.mT * 0.5).softmax(-1) @ v).transpose(2, 3).reshape(q.shape[0], 12, 5),
        (2, 2, 5, 3),
        (2, 2, 7, 3),
        (2, 2, 7, 6),
    ),
    case("Bilinear", lambda: nn.Bilinear(3, 4, 5), (2, 3), (2, 4)),
    case("Linear called twice", lambda: TwoUses(bare=False), TOKENS),
    case("Linear called twice and its weight alone", lambda: TwoUses(bare=True), TOKENS),
    case("Embedding", lambda: nn.Embedding(11, 8), torch.tensor([[1, 2, 10], [0, 5, 3]])),
    case("tied embedding", Tied, torch.tensor([[1, 2, 10], [0, 5, 3]])),
    applied("matmul", lambda a, b: a @ b.transpose(-1, -2), HEADS, HEADS),
    applied("matmul with broadcast", lambda a, b: a @ b, (2, 3, 5, 4), (2, 1, 4, 3)),
    case("matmul by a parameter of four axes", ByParameter, (2, 2, 4, 6)),
    applied("bmm", torch.bmm, (2, 3, 4), (2, 4, 5)),
    applied("einsum", lambda a, b: torch.einsum("bhtd,bhsd->bths", a, b), HEADS, HEADS),
    applied("einsum in capitals", lambda a, b: torch.einsum("B H I D, B H J D -> B H I J", a, b), HEADS, HEADS),
    applied("outer product", lambda a: a[:, :, None] * a[:, None, :], (2, 6)),
    applied("baddbmm", lambda a, b, c: torch.baddbmm(a, b, c, beta=0.3, alpha=0.7), (2, 3, 5), (2, 3, 4), (2, 4, 5)),
)  # fmt: skip

ATTENTION: tuple[Case, ...] = (
    case("MultiheadAttention, batch first", lambda: SelfAttention(batch_first=True), TOKENS),
    case("MultiheadAttention, sequence first", lambda: SelfAttention(), (5, 2, 8)),
    case("MultiheadAttention without bias", lambda: SelfAttention(batch_first=True, bias=False), TOKENS),
    case("MultiheadAttention with its weights", lambda: SelfAttention(batch_first=True, weights=True), TOKENS),
    case("MultiheadAttention with a causal mask", lambda: SelfAttention(batch_first=True, mask=CAUSAL), TOKENS),
    case("cross attention", CrossAttention, (2, 5, 8), (2, 4, 6), (2, 4, 7)),
    case("one map for three", Fused, TOKENS),
    case("one map for three, and a bias", lambda: Fused(bias=True), TOKENS),
    case("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), TOKENS),
    case("TransformerEncoderLayer, norm first",
         lambda: nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, activation="gelu"), TOKENS),
    case("Transformer with a mask", Masked, TOKENS, (2, 4, 8)),
    case("TransformerDecoderLayer", lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), TOKENS, (2, 3, 8)),
    applied("scaled dot product", dot_product(), HEADS, HEADS, HEADS),
    applied("scaled dot product, causal", dot_product(is_causal=True), HEADS, HEADS, HEADS),
    applied("scaled dot product, its own scale", dot_product(scale=0.3), HEADS, HEADS, HEADS),
    applied("scaled dot product with a mask", dot_product(attn_mask=~CAUSAL), HEADS, HEADS, HEADS),
    applied("scaled dot product of three axes", dot_product(), TOKENS, TOKENS, TOKENS),
    applied("scaled dot product of six axes", dot_product(is_causal=True), *[(2, 3, 2, 2, 4, 5)] * 3),
    applied("scaled dot product of six axes and keys of five",
            dot_product(), (2, 3, 2, 2, 4, 5), (3, 2, 2, 4, 5), (3, 2, 2, 4, 5)),
    applied("scaled dot product with keys of fewer axes", dot_product(), HEADS, HEADS[1:], HEADS[1:]),
    applied("grouped heads", dot_product(enable_gqa=True), (2, 4, 5, 4), HEADS, HEADS),
    applied("one head of keys for all", dot_product(), (2, 4, 5, 4), (2, 1, 6, 4), (2, 1, 6, 4)),
    applied("one row of keys for all", lambda q, k: F.scaled_dot_product_attention(q, k[:1], k[:1]), HEADS, HEADS),
)  # fmt: skip


@pytest.mark.parametrize("one", LINEAR, ids=lambda c: c.name)
def test_linear_maps_are_proven(one: Case) -> None:
    assert_proven(LINEAR, one)


@pytest.mark.parametrize("one", ATTENTION, ids=lambda c: c.name)
def test_attention_is_proven(one: Case) -> None:
    assert_proven(ATTENTION, one)
