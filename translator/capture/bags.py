"""Bags of rows of a table (`nn.EmbeddingBag`), which the exporter loops over: a lookup, then one reduction."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_OWN = functional.embedding_bag


def embedding_bag(
    input: Tensor,  # noqa: A002 - PyTorch's names
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Bags of one size, (B, N), or a row of indices that offsets cut into bags; an empty bag gives zeros.

    Indices (…, N) and which of them count, (B, N), become rows (…, N, D), and those (B, D). Rows that are shortened in
    the table itself (`max_norm`) stay PyTorch's.
    """
    if max_norm is not None or (input.ndim == 1 and offsets is None):
        result: Tensor = _OWN(
            input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights,
            include_last_offset, padding_idx,
        )  # fmt: skip
        return result
    counts = None if offsets is None else _members(input, offsets, include_last_offset)
    if padding_idx is not None:
        real = input != padding_idx % weight.shape[0]
        counts = real if counts is None else counts & real
    rows = functional.embedding(input, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if counts is None:
        return rows.amax(-2) if mode == "max" else rows.mean(-2) if mode == "mean" else rows.sum(-2)
    shown = counts.unsqueeze(-1)
    if mode == "max":
        largest = torch.where(shown, rows, -torch.inf).amax(-2)
        return torch.where(counts.any(-1, keepdim=True), largest, 0.0)
    total = torch.where(shown, rows, 0.0).sum(-2)
    return total / counts.sum(-1, keepdim=True).clamp(min=1) if mode == "mean" else total


def _members(indices: Tensor, offsets: Tensor, closed: bool) -> Tensor:
    """Which places of the row lie in which bag, (B, N). closed: the last offset is where the last bag ends."""
    place = torch.ones_like(indices).cumsum(0) - 1
    begun = place >= offsets.unsqueeze(-1)
    if closed:
        return begun[:-1] & ~begun[1:]
    ended = torch.cat((begun[1:], torch.zeros_like(begun[:1])), 0)
    return begun & ~ended
