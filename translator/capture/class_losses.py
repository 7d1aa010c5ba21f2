"""Losses of classes inside a model, which the exporter leaves to ops of training: written with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_OWN = functional.cross_entropy, functional.nll_loss


def cross_entropy(
    input: Tensor,  # noqa: A002 - PyTorch's names
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Of logits (N, C, …) or (C,), and classes (N, …) or (), or the classes' probabilities in the logits' shape."""
    if size_average is not None or reduce is not None:
        return _OWN[0](input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing)
    axis = min(input.ndim - 1, 1)
    logs = functional.log_softmax(input, axis)
    if not target.is_floating_point():
        return _of_classes(logs, target, weight, ignore_index, reduction, label_smoothing)
    expected = target * (1 - label_smoothing) + label_smoothing / input.shape[axis]
    losses = -(_weighted(logs, weight, axis) * expected).sum(axis)
    return losses.mean() if reduction == "mean" else _reduced(losses, reduction)


def nll_loss(
    input: Tensor,  # noqa: A002 - PyTorch's names
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Of logarithms of probabilities (N, C, …) or (C,), and classes (N, …) or ()."""
    if size_average is not None or reduce is not None:
        return _OWN[1](input, target, weight, size_average, ignore_index, reduce, reduction)
    return _of_classes(input, target, weight, ignore_index, reduction, 0.0)


def _of_classes(
    logs: Tensor, target: Tensor, weight: Tensor | None, ignored: int, reduction: str, smoothing: float
) -> Tensor:
    """The mean is over the weights of the classes that count; smoothing gives every class its part of the loss."""
    axis = min(logs.ndim - 1, 1)
    counts = target != ignored
    classes = torch.where(counts, target, 0)
    shares = counts.to(logs.dtype) if weight is None else weight[classes] * counts
    losses = -logs.gather(axis, classes.unsqueeze(axis)).squeeze(axis)
    losses = losses if weight is None else losses * weight[classes]
    if smoothing:
        every = -_weighted(logs, weight, axis).sum(axis)
        losses = (1 - smoothing) * losses + smoothing / logs.shape[axis] * every
    losses = torch.where(counts, losses, 0)
    return losses.sum() / shares.sum() if reduction == "mean" else _reduced(losses, reduction)


def _weighted(logs: Tensor, weight: Tensor | None, axis: int) -> Tensor:
    return logs if weight is None else logs * weight.reshape(-1, *(1,) * (logs.ndim - 1 - axis))


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses.sum() if reduction == "sum" else losses


CLASS_LOSSES: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.cross_entropy: cross_entropy, functional.nll_loss: nll_loss,
}  # fmt: skip
