"""The inputs a proof runs on: the caller's example where it says something, seeded random numbers for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from translator.verify.claim_index import ClaimIndex, Target
from translator.verify.torch_record import map_tensors, tensors_in
from translator.verify.watch import wide

_MORE = ((33, 66), (32, 64), (64, 32), (-1, -2))
"""What is added to the sizes that are open, until PyTorch takes it: an odd number first, so that halves round."""


def proof_inputs(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], index: ClaimIndex, rng: np.random.Generator, batch: int | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example with `batch` rows: its own where they vary, else random ones like them. None: as many as it has."""
    targets = _targets(index, args, kwargs)
    return _changed(lambda t: _rows(t, _batch_axis(index, next(targets)), rng, batch), args, kwargs)


def wide_inputs(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], index: ClaimIndex, rng: np.random.Generator, batch: int | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Floats in a wide range of both signs, other valid integers; `batch` rows (None: as many as the example has)."""
    targets = _targets(index, args, kwargs)
    return _changed(lambda t: _wide_rows(t, _batch_axis(index, next(targets)), rng, batch), args, kwargs)


def other_sizes(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], index: ClaimIndex, rng: np.random.Generator
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The inputs at other sizes along the axes behind the batch that Keras leaves open; nothing if there are none."""
    for more in _MORE:
        targets = _targets(index, args, kwargs)
        changed = _changed(lambda t, more=more: _grown(t, index, next(targets), more, rng), args, kwargs)  # noqa: B023
        if any(a.shape != b.shape for a, b in zip(tensors_in(changed), tensors_in((args, kwargs)), strict=True)):
            yield changed


def with_rows(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], index: ClaimIndex, rows: int
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The example with that many rows, its own in their order, some again; None where Keras leaves no batch open.

    The order stays since it may mean something: what is sorted, as the offsets of bags, must be.
    """
    axes = [_batch_axis(index, target) for target in _targets(index, args, kwargs)]
    if None in axes or not axes:
        return None
    places = iter(axes)

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        axis = next(places) or 0
        return tensor.index_select(axis, torch.arange(rows) * tensor.shape[axis] // rows)

    return _changed(repeated, args, kwargs)


def first_row(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], index: ClaimIndex
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same inputs with one row only, where they have rows."""
    targets = _targets(index, args, kwargs)

    def one(tensor: torch.Tensor) -> torch.Tensor:
        axis = _batch_axis(index, next(targets))
        return tensor if axis is None else tensor.narrow(axis, 0, 1).clone()

    return _changed(one, args, kwargs)


def in_dtype(args: tuple[Any, ...], kwargs: Mapping[str, Any], dtype: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same numbers with every float tensor in `dtype`."""
    kind = getattr(torch, dtype)
    return _changed(lambda t: t.to(kind) if t.is_floating_point() else t.clone(), args, kwargs)


def _changed(change: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    changed = map_tensors(change, (args, dict(kwargs)))
    return changed[0], changed[1]


def _targets(index: ClaimIndex, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Target | None]:
    count = len(tensors_in((args, kwargs)))
    known = list(index.inputs)[:count]
    return iter([*known, *[None] * (count - len(known))])


def _grown(
    tensor: torch.Tensor, index: ClaimIndex, target: Target | None, more: tuple[int, ...], rng: np.random.Generator
) -> torch.Tensor:
    batch = _batch_axis(index, target)
    if target is None or target.layout.view is not None:
        return tensor.clone()
    shape = index.graph.shapes[target.value]
    axes = [a for a in range(1, tensor.ndim) if a != batch and shape[target.layout.axis(a)] is None]
    size = list(tensor.shape)
    for axis, extra in zip(axes, more, strict=False):
        size[axis] = max(size[axis] + extra, 1)
    return _random(tensor, size, rng, varied=True) if axes else tensor.clone()


def _batch_axis(index: ClaimIndex, target: Target | None) -> int | None:
    """The PyTorch axis that Keras leaves open in front; None where there is no such axis."""
    if target is None or not target.layout.axes:
        return None
    shape = index.graph.shapes[target.value]
    return target.layout.axes[0] if shape and shape[0] is None and target.layout.view is None else None


def _rows(tensor: torch.Tensor, axis: int | None, rng: np.random.Generator, batch: int | None) -> torch.Tensor:
    varied = tensor.numel() > 1 and not bool((tensor == tensor.flatten()[0]).all())
    size = tensor.shape[axis] if axis is not None else 0
    wanted = batch if batch is not None and axis is not None else size
    shape = [wanted if a == axis else n for a, n in enumerate(tensor.shape)]
    if not varied and (tensor.is_floating_point() or axis is None or wanted == size):
        return _random(tensor, shape, rng, varied=False) if tensor.is_floating_point() else tensor.clone()
    if axis is None or wanted == size:
        return tensor.detach().clone()
    own = tensor.detach().narrow(axis, 0, min(size, wanted))
    more = _random(tensor, [max(wanted - size, 0) if a == axis else n for a, n in enumerate(shape)], rng, varied=varied)
    return torch.cat([own, more], dim=axis) if wanted > size else own.clone()


def _wide_rows(tensor: torch.Tensor, axis: int | None, rng: np.random.Generator, batch: int | None) -> torch.Tensor:
    shape = [batch if a == axis and batch is not None else n for a, n in enumerate(tensor.shape)]
    if tensor.is_floating_point():
        return torch.from_numpy(wide(rng, tuple(shape))).to(tensor.dtype)
    return _random(tensor, shape, rng, varied=True)


def _random(tensor: torch.Tensor, shape: list[int], rng: np.random.Generator, *, varied: bool) -> torch.Tensor:
    """Numbers like those of `tensor`: of its mean and spread, or between its smallest and largest."""
    if tensor.is_floating_point():
        numbers = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        if varied:
            numbers = numbers * tensor.float().std() + tensor.float().mean()
        return numbers.to(tensor.dtype)
    if tensor.dtype == torch.bool:
        low, high = (0, 1) if varied else (int(tensor.flatten()[0]), int(tensor.flatten()[0]))
    else:
        low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 0)
    return torch.from_numpy(rng.integers(low, high + 1, shape)).to(tensor.dtype)
