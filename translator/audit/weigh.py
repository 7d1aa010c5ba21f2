"""The numbers in the weights: does Keras hold PyTorch's, which not, and what happened to those.

Two models that were never given the same weights say nothing by their numbers; a port with one wrong weight says all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import keras
import numpy as np

from translator.audit.bind import Bound
from translator.verdict import Difference, Effect
from translator.verify.keras_replay import to_numpy

_ENOUGH = 64
_ALIKE = 0.5
_ROUNDED = 1e-5


class Relation(StrEnum):
    """same: every weight that corresponds is equal. related: some differ. unrelated: the two were drawn apart."""

    SAME = "same"
    RELATED = "related"
    UNRELATED = "unrelated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """One Keras variable against what it should hold. wrong: how many elements differ; related: a number says that
    it was once the same tensor; None where the tensor is constant or too small to say."""

    bound: Bound
    want: np.ndarray = field(repr=False)
    got: np.ndarray = field(repr=False)
    wrong: int
    related: bool | None


def weigh(bound: Sequence[Bound], state: Mapping[str, np.ndarray]) -> list[Weighed]:
    """Compare every variable with PyTorch's tensors, bit for bit; computed ones to rounding."""
    found = []
    for entry in bound:
        want = entry.value(state)
        if want is None:
            continue
        got = to_numpy(entry.keras.handle.value)
        if got.dtype.kind not in "fiub":
            got = got.astype(np.float32)
        found.append(_weighed(entry, want, got))
    return found


def relation(weighed: Sequence[Weighed]) -> Relation:
    """Whether the two models hold the same numbers, partly the same, or numbers that were drawn apart."""
    if not any(w.wrong for w in weighed):
        return Relation.SAME
    telling = [w.related for w in weighed if w.related is not None]
    return Relation.RELATED if any(telling) or not telling else Relation.UNRELATED


def _weighed(entry: Bound, want: np.ndarray, got: np.ndarray) -> Weighed:
    if want.shape != got.shape:
        return Weighed(bound=entry, want=want, got=got, wrong=want.size, related=False)
    a, b = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    if entry.how in ("computed", "sum"):
        differs = np.abs(a - b) > _ROUNDED * max(float(np.abs(a).max(initial=0.0)), 1e-30)
    else:
        differs = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    wrong = int(differs.sum())
    if a.size < _ENOUGH or np.ptp(a) == 0:
        return Weighed(bound=entry, want=want, got=got, wrong=wrong, related=None)
    return Weighed(bound=entry, want=want, got=got, wrong=wrong, related=not wrong or _alike(a, b))


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    if (a == b).mean() > 0.1 or np.array_equal(np.sort(a), np.sort(b)):
        return True
    if np.ptp(b) == 0 or not np.isfinite(b).all():
        return False
    return abs(float(np.corrcoef(a, b)[0, 1])) > _ALIKE


def weight_differences(weighed: Sequence[Weighed]) -> Iterator[Difference]:
    """A difference for each variable that does not hold what it should, with what seems to have happened."""
    for entry in weighed:
        if entry.wrong:
            yield Difference(
                kind="weights",
                layers=(entry.bound.torch_layer or "(model)",),
                torch=" + ".join(entry.bound.tensors),
                keras=f"{entry.bound.keras.name}: {what_happened(entry, weighed)}",
                effect=Effect.INFERENCE,
                fix="translator transfer, or translator.transfer(module, keras_model, …)",
                detail=f"{entry.wrong:,} of {entry.want.size:,} numbers differ",
            )


Cause = Callable[[np.ndarray, np.ndarray], bool]

_CAUSES: tuple[tuple[str, Cause], ...] = (
    ("NaN or infinity", lambda w, g: not np.isfinite(g).all()),
    ("all zero", lambda w, g: not g.any()),
    ("constant", lambda w, g: bool(g.size > 1 and np.ptp(g) == 0 and np.ptp(w) != 0)),
    ("the sign is turned", lambda w, g: np.array_equal(w, -g)),
    ("rounded to float16", lambda w, g: _rounds(w, g, np.float16)),
    ("rounded to bfloat16", lambda w, g: _is_bfloat16(w, g)),
    ("scaled", lambda w, g: _scaled(w, g)),
    ("two axes are exchanged", lambda w, g: _transposed(w, g)),
    ("the same numbers in another order", lambda w, g: np.array_equal(np.sort(w, axis=None), np.sort(g, axis=None))),
)  # fmt: skip


def what_happened(entry: Weighed, others: Sequence[Weighed] = ()) -> str:
    """The likeliest cause in a few words."""
    want, got = entry.want, entry.got
    if want.shape != got.shape:
        return f"shape {got.shape}, want {want.shape}"
    with np.errstate(all="ignore"):
        for other in others:
            informative = other is not entry and np.ptp(other.want) != 0
            if informative and other.want.shape == got.shape and np.array_equal(other.want, got):
                return f"holds {' + '.join(other.bound.tensors)}"
        for text, cause in _CAUSES:
            if cause(want, got):
                return text
    if entry.wrong <= max(1, want.size // 100):
        return f"{entry.wrong:,} single {'number' if entry.wrong == 1 else 'numbers'} changed"
    if entry.related:
        return "changed a little"
    return "other numbers"


def _rounds(want: np.ndarray, got: np.ndarray, dtype: Any) -> bool:
    return np.array_equal(want.astype(dtype).astype(want.dtype), got)


def _is_bfloat16(want: np.ndarray, got: np.ndarray) -> bool:
    if got.dtype != np.float32 or want.dtype != np.float32:
        return False
    bits = np.ascontiguousarray(got).view(np.uint32)
    return not (bits & 0xFFFF).any() and bool(np.allclose(want, got, rtol=2**-7, atol=0))


def _scaled(want: np.ndarray, got: np.ndarray) -> bool:
    used = want != 0
    if used.sum() < 2 or got[~used].any():
        return False
    ratio = got[used].astype(np.float64) / want[used].astype(np.float64)
    return bool(np.ptp(ratio) <= 1e-5 * abs(ratio.mean()))


def _transposed(want: np.ndarray, got: np.ndarray) -> bool:
    rank = want.ndim
    pairs = ((i, j) for i in range(rank) for j in range(i + 1, rank) if want.shape[i] == want.shape[j])
    return any(np.array_equal(np.swapaxes(want, i, j), got) for i, j in pairs)


def load(bound: Sequence[Bound], state: Mapping[str, np.ndarray], *, neutralise: bool = False) -> None:
    """Give Keras PyTorch's weights. neutralise: what only Keras has gets the numbers by which it does nothing."""
    for entry in bound:
        value = entry.value(state)
        if value is None and neutralise:
            value = np.full(entry.keras.shape, entry.neutral)
        if value is not None:
            variable = entry.keras.handle
            variable.assign(value.astype(keras.backend.standardize_dtype(variable.dtype)))


@contextmanager
def kept(model: keras.Model) -> Iterator[None]:
    """Afterwards every weight of the Keras model is bit for bit what it was."""
    own = [(v, np.array(to_numpy(v.value))) for v in model.weights]
    try:
        yield
    finally:
        for variable, value in own:
            variable.assign(value)
