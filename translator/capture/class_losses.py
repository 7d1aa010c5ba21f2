"""Losses of classes inside a model, which the exporter leaves to ops of training: written with others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import _reduction, functional


def _class_loss(
    input: Tensor,  # noqa: A002 - PyTorch's names
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    logits: bool,
) -> Tensor:
    """Of logits, or logarithms of probabilities, (N, C, …) or (C,), and classes (N, …) or (), or the classes'
    probabilities in the logits' shape."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce, emit_warning=False)
    axis = min(input.ndim - 1, 1)
    logs = functional.log_softmax(input, axis) if logits else input
    if not target.is_floating_point():
        return _of_classes(logs, target, weight, ignore_index, reduction, label_smoothing)
    expected = target * (1 - label_smoothing) + label_smoothing / input.shape[axis]
    losses = -(_weighted(logs, weight, axis) * expected).sum(axis)
    return losses.mean() if reduction == "mean" else _reduced(losses, reduction)


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


cross_entropy: Callable[..., Tensor] = partial(_class_loss, logits=True)
nll_loss: Callable[..., Tensor] = partial(_class_loss, logits=False)

CLASS_LOSSES: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.cross_entropy: cross_entropy, functional.nll_loss: nll_loss,
}  # fmt: skip
