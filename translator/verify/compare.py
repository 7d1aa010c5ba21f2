"""Compare a Keras value with what PyTorch computed: shape and dtype first, NaN and infinity in place, then the error.

No broadcasting and no casting. The error is relative: max|got − want| / max|want|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from translator.types import Layout

_KINDS = {"f": "float", "i": "integer", "u": "integer", "b": "bool", "c": "complex"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one comparison found.

    error: relative; infinite where nothing could be compared. max_abs: the largest absolute difference. problem: why
    the values can't be compared, "" if they could. informative: False where the reference is constant (and has more
    than one element), so that agreement proves little.
    """

    error: float
    max_abs: float
    problem: str = ""
    informative: bool = True

    def within(self, limit: float) -> bool:
        """Whether the values agree to `limit`; never true for NaN or a problem."""
        return not self.problem and self.error <= limit


def failure(problem: str) -> Outcome:
    """The outcome of a comparison that could not be made."""
    return Outcome(error=math.inf, max_abs=math.inf, problem=problem)


def compare(got: np.ndarray, want: np.ndarray, *, scale: float = 0.0) -> Outcome:
    """Compare `got` with `want`, both as they are.

    scale: magnitude of what the values were computed from; used only where `want` is all zero and has none of its own.
    """
    if got.shape != want.shape:
        return failure(f"shape {got.shape}, want {want.shape}")
    kinds = _KINDS.get(got.dtype.kind, got.dtype.name), _KINDS.get(want.dtype.kind, want.dtype.name)
    if kinds[0] != kinds[1]:
        return failure(f"dtype {got.dtype}, want {want.dtype}")
    if kinds[1] in ("float", "complex") and got.dtype != want.dtype:
        return failure(f"computed in {got.dtype}, want {want.dtype}")
    if want.size == 0:
        return failure("empty: nothing to compare")
    if kinds[1] == "bool" or kinds[1] == "integer":
        return _exact(got, want)
    return _close(got, want, scale)


def lay_out(tensor: torch.Tensor, layout: Layout, keras_shape: Sequence[int | None]) -> np.ndarray:
    """A PyTorch tensor as it lies on the Keras side: `reshape(view).permute(axes).reshape(keras shape)`.

    keras_shape: of the Keras value, None where dynamic. Without a view the tensor is only permuted, so that a wrong
    number of dimensions shows. Raises ValueError where the layout does not fit the tensor.
    """
    array = _numpy(tensor)
    if layout.view is None:
        return np.transpose(array, layout.axes)
    array = np.transpose(array.reshape(_sizes(layout.view, array)), layout.axes)
    wanted = tuple(keras_shape)
    return array.reshape(_sizes(wanted, array) if wanted.count(None) < 2 else _leading(wanted, tensor.shape))


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """max|got − want| / max|want| of two finite arrays of one shape; 0/0 is 0."""
    largest = float(np.max(np.abs(want), initial=0.0))
    difference = float(np.max(np.abs(got - want), initial=0.0))
    return 0.0 if difference == 0 else difference / largest if largest else math.inf


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """`relative`, in float64, of two arrays of one shape in any precision; infinite where whole numbers differ, or what
    isn't finite."""
    if got.dtype.kind not in "fc":
        return 0.0 if np.array_equal(got, want) else math.inf
    finite = np.isfinite(want) & np.isfinite(got)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return math.inf
    return relative(got[finite].astype(np.float64), want[finite].astype(np.float64))


def _exact(got: np.ndarray, want: np.ndarray) -> Outcome:
    wrong = int(np.count_nonzero(got != want))
    constant = want.size > 1 and bool((want == want.flat[0]).all())
    if not wrong:
        return Outcome(error=0.0, max_abs=0.0, informative=not constant)
    largest = float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64))))
    return Outcome(error=math.inf, max_abs=largest, problem=f"{wrong} of {want.size} whole numbers differ")


def _close(got: np.ndarray, want: np.ndarray, scale: float) -> Outcome:
    finite = np.isfinite(want)
    if not finite.all() or not np.isfinite(got).all():
        same = np.isnan(got) == np.isnan(want)
        same &= (got == want) | ~(np.isinf(want) | np.isinf(got))
        if not same.all():
            return failure(f"NaN or infinity at {int((~same).sum())} places where PyTorch has something else")
        if not finite.any():
            return Outcome(error=0.0, max_abs=0.0, informative=False)
        got, want = got[finite], want[finite]
    largest = float(np.max(np.abs(want)))
    difference = float(np.max(np.abs(got - want)))
    constant = want.size > 1 and bool((want == want.flat[0]).all())
    if difference == 0:
        error = 0.0
    elif largest or scale:
        error = difference / (largest or scale)
    else:
        error = math.inf
    return Outcome(error=error, max_abs=difference, informative=not constant)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    array: np.ndarray = tensor.resolve_conj().resolve_neg().cpu().numpy()
    return array


def _sizes(shape: Sequence[int | None], array: np.ndarray) -> tuple[int, ...]:
    """`shape` with its one None resolved from the number of elements; several are taken from the leading axes."""
    if shape.count(None) > 1:
        return _leading(shape, array.shape)
    known = math.prod(d for d in shape if d is not None)
    if None in shape and (known == 0 or array.size % known):
        raise ValueError(f"{array.shape} can't be seen as {tuple(shape)}")
    resolved = tuple(array.size // known if d is None else d for d in shape)
    if math.prod(resolved) != array.size:
        raise ValueError(f"{array.shape} can't be seen as {tuple(shape)}")
    return resolved


def _leading(shape: Sequence[int | None], sizes: Sequence[int]) -> tuple[int, ...]:
    """Resolve several None: each but the last stands for the size at its own place."""
    gaps = [i for i, d in enumerate(shape) if d is None]
    if len(sizes) <= gaps[-2]:
        raise ValueError(f"{tuple(sizes)} can't be seen as {tuple(shape)}")
    partly = [sizes[i] if i in gaps[:-1] else d for i, d in enumerate(shape)]
    known = math.prod(d for d in partly if d is not None)
    total = math.prod(sizes)
    if known == 0 or total % known:
        raise ValueError(f"{tuple(sizes)} can't be seen as {tuple(shape)}")
    return tuple(total // known if d is None else d for d in partly)
