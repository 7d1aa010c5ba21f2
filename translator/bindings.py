"""Weight bindings: which PyTorch tensors, through which steps, become which Keras variable; and the way back.

A binding is pure data. Forward: take the pieces (whole tensors or regions of them), join them, then apply the steps.
Backward: undo the steps, cut the pieces apart, and write each into its region of its tensor. A `sum` join (the two
biases of an LSTM) has no way back and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from translator.errors import InternalError

Region = tuple[tuple[int, int], ...]
"""Half-open (start, stop) per axis of the PyTorch tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One PyTorch tensor by its exact state-dict name, or a region of it (None: the whole tensor)."""

    tensor: str
    region: Region | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Permute:
    """`np.transpose(x, axes)`."""

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape:
    """`np.reshape(x, after)`, from exactly the shape `before`."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """`np.flip(x, axes)`."""

    axes: tuple[int, ...]


Step = Permute | Reshape | Flip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A BatchNorm folded into a kernel or bias, by the names of its tensors: computed in float64, no way back.

    role: kernel · s, or (bias − mean) · s + beta, with s = gamma / sqrt(variance + epsilon). axes: how many of the
    variable's last axes are the channels (two in a depthwise kernel).
    """

    role: Literal["kernel", "bias"]
    mean: str
    variance: str
    epsilon: float
    gamma: str | None = None
    beta: str | None = None
    axes: int = 1

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that this variable answers for; the two roles share them out."""
        names = (self.gamma, self.variance) if self.role == "kernel" else (self.beta, self.mean)
        return tuple(name for name in names if name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBinding:
    """One Keras variable and what it is made of.

    variable: the attribute of the layer, in the layer's own naming ("kernel", "gamma", "moving_mean", "embeddings").
    pieces: PyTorch tensors or regions, in order; empty for a constant of the graph (then `constant` holds it).
    join: how several pieces become one array along `axis`. steps: applied after joining, in order.
    shape: of the Keras variable. trainable: as the PyTorch tensor is a parameter with requires_grad, or not.
    """

    variable: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...] = ()
    join: Literal["concat", "sum"] = "concat"
    axis: int = 0
    steps: tuple[Step, ...] = ()
    trainable: bool = True
    constant: np.ndarray | None = None
    fold: Fold | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the PyTorch tensors that it is made of, in order, without repeats."""
        own = dict.fromkeys(p.tensor for p in self.pieces)
        return (*own, *(self.fold.tensors if self.fold else ()))

    @property
    def invertible(self) -> bool:
        """Whether the PyTorch tensors follow from the Keras variable."""
        return self.join == "concat" and bool(self.pieces) and self.fold is None


def to_keras(binding: WeightBinding, state: Mapping[str, np.ndarray]) -> np.ndarray:
    """The Keras variable's value, shape `binding.shape`, dtype of the PyTorch tensors."""
    if binding.constant is not None:
        return binding.constant
    parts = [_cut(state[p.tensor], p.region) for p in binding.pieces]
    if not parts:
        value = np.zeros(binding.shape, dtype=np.float32)
    elif len(parts) == 1:
        value = parts[0]
    else:
        value = (
            np.concatenate(parts, axis=binding.axis)
            if binding.join == "concat"
            else np.sum(parts, axis=0, dtype=parts[0].dtype)
        )
    for step in binding.steps:
        value = forward(step, value)
    if value.shape != binding.shape:
        raise InternalError(f"binding of {binding.variable} gives shape {value.shape}, want {binding.shape}")
    return value if binding.fold is None else _folded(binding.fold, value, state)


def _folded(fold: Fold, value: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    """A kernel or bias with the BatchNorm in it, rounded once, at the end."""

    def read(name: str | None, otherwise: float) -> np.ndarray:
        return np.asarray(otherwise) if name is None else state[name].astype(np.float64)

    scale = read(fold.gamma, 1.0) / np.sqrt(read(fold.variance, 1.0) + fold.epsilon)
    wide = value.astype(np.float64)
    if fold.role == "kernel":
        result = wide * scale.reshape(value.shape[-fold.axes :])
    else:
        result = (wide - read(fold.mean, 0.0)) * scale + read(fold.beta, 0.0)
    return result.astype(value.dtype)


def to_torch(
    bindings: Iterable[tuple[WeightBinding, np.ndarray]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Every PyTorch tensor that the bound Keras variables determine, by state-dict name.

    bindings: each binding with its variable's value, shape `binding.shape`. shapes: of the PyTorch tensors.
    A tensor that only a `sum` binding reads, or that is covered in part, is left out.
    """
    found: dict[str, np.ndarray] = {}
    covered: dict[str, np.ndarray] = {}
    for binding, value in bindings:
        if not binding.invertible:
            continue
        for step in reversed(binding.steps):
            value = forward(inverse(step), value)
        start = 0
        for piece in binding.pieces:
            size = _extent(piece, shapes, binding.axis)
            part = np.take(value, range(start, start + size), axis=binding.axis) if len(binding.pieces) > 1 else value
            start += size
            whole = found.setdefault(piece.tensor, np.empty(shapes[piece.tensor], dtype=value.dtype))
            mask = covered.setdefault(piece.tensor, np.zeros(shapes[piece.tensor], dtype=bool))
            index = _index(piece.region)
            whole[index], mask[index] = part, True
    return {name: value for name, value in found.items() if covered[name].all()}


def gradients_to_torch(
    bindings: Iterable[tuple[WeightBinding, np.ndarray]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The gradient of every PyTorch tensor that a bound Keras variable reads, from the gradients of the variables.

    The transpose of `to_keras`: a tensor that several variables read (tied weights kept twice) gets the sum of theirs,
    and each tensor of a `sum` join gets the whole gradient of the sum.
    """
    found: dict[str, np.ndarray] = {}
    for binding, value in bindings:
        for step in reversed(binding.steps):
            value = forward(inverse(step), value)
        start = 0
        for piece in binding.pieces:
            part = value
            if binding.join == "concat" and len(binding.pieces) > 1:
                size = _extent(piece, shapes, binding.axis)
                part = np.take(value, range(start, start + size), axis=binding.axis)
                start += size
            whole = found.setdefault(piece.tensor, np.zeros(shapes[piece.tensor], dtype=value.dtype))
            whole[_index(piece.region)] += part
    return found


def _cut(array: np.ndarray, region: Region | None) -> np.ndarray:
    return array if region is None else array[_index(region)]


def _index(region: Region | None) -> tuple[slice, ...]:
    return (...,) if region is None else tuple(slice(a, b) for a, b in region)  # type: ignore[return-value]


def _extent(piece: Piece, shapes: Mapping[str, tuple[int, ...]], axis: int) -> int:
    if piece.region is None:
        return shapes[piece.tensor][axis] if shapes[piece.tensor] else 1
    start, stop = piece.region[axis]
    return stop - start


def inverse(step: Step) -> Step:
    """The step that undoes another."""
    match step:
        case Permute(axes=axes):
            return Permute(axes=tuple(int(a) for a in np.argsort(axes)))
        case Reshape(before=before, after=after):
            return Reshape(before=after, after=before)
        case Flip():
            return step


def forward(step: Step, value: np.ndarray) -> np.ndarray:
    """The array after one step."""
    match step:
        case Permute(axes=axes):
            return np.transpose(value, axes)
        case Reshape(before=before, after=after):
            if value.shape != before:
                raise InternalError(f"reshape step expects {before}, got {value.shape}")
            return value.reshape(after)
        case Flip(axes=axes):
            return np.flip(value, axes)
