"""The same small encoder block with its attention written in three ways in PyTorch and in three ways in Keras."""

from __future__ import annotations

from typing import Any

import keras
import torch
from keras import layers, ops
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, TOKENS = 8, 2, 5


class Module(nn.Module):
    """nn.MultiheadAttention: one packed matrix in the module."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Packed(nn.Module):
    """One Linear for query, key and value, as in timm."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(n, t, c))


class Separate(nn.Module):
    """Three Linears and the attention written out, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.dropout, self.out = nn.Dropout(0.1), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        q, k, v = (part(x).view(n, t, HEADS, c // HEADS).transpose(1, 2) for part in (self.query, self.key, self.value))
        weights = self.dropout(F.softmax(q @ k.transpose(-1, -2) / (c // HEADS) ** 0.5, dim=-1))
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, c))


class Block(nn.Module):
    """norm, attention, sum, norm, two layers, sum."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), attention
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def layer(x: Any) -> Any:
    """keras.layers.MultiHeadAttention."""
    return layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")(x, x)


def separate(x: Any) -> Any:
    """Three Dense and the attention written out."""
    q, k, v = (_heads(layers.Dense(WIDTH, name=name)(x)) for name in ("query", "key", "value"))
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / (WIDTH // HEADS) ** 0.5
    y = ops.matmul(ops.softmax(scores, axis=-1), v)
    return layers.Dense(WIDTH, name="out")(_merged(y))


def packed(x: Any) -> Any:
    """One Dense for query, key and value."""
    q, k, v = (_heads(part) for part in ops.split(layers.Dense(3 * WIDTH, name="qkv")(x), 3, axis=-1))
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * (WIDTH // HEADS) ** -0.5
    return layers.Dense(WIDTH, name="out")(_merged(ops.matmul(ops.softmax(scores, axis=-1), v)))


def _heads(x: Any) -> Any:
    return ops.transpose(ops.reshape(x, (-1, TOKENS, HEADS, WIDTH // HEADS)), (0, 2, 1, 3))


def _merged(x: Any) -> Any:
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, TOKENS, WIDTH))


def keras_block(attention: Any) -> keras.Model:
    x = tokens = keras.Input((TOKENS, WIDTH))
    x = x + attention(layers.LayerNormalization(epsilon=1e-5)(x))
    y = layers.Dense(12, activation="gelu")(layers.LayerNormalization(epsilon=1e-5)(x))
    return keras.Model(tokens, x + layers.Dense(WIDTH)(y))
