"""What float32 loses: as much as PyTorch's own, or so much more that somebody has to look."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from translator.verify.claim_index import ROOT
from translator.verify.compare import relative
from translator.verify.findings import Book
from translator.verify.inputs import in_dtype
from translator.verify.runs import Bench, Inputs, in_float64
from translator.verify.torch_record import evaluating, outputs_of

_FAR = 1e-2
"""Relative error of the whole model in float32 that asks for a second look."""

_SPREAD = 100
"""How many times what PyTorch's own float32 loses Keras' may: the kernels sum in another order."""


def note_if_far(book: Book, bench: Bench, inputs: Inputs, outputs: Sequence[torch.Tensor], notes: list[str]) -> None:
    """Add a note where Keras' float32 is far from PyTorch's, and PyTorch's own isn't from its float64.

    No finding: where a network picks among numbers (the largest of a row, a step at 0), rounding picks others, and
    neither model is wrong. But a kernel of the backend's may be, that float64 doesn't use. outputs: PyTorch's, in
    float32.
    """
    worst = book.entries[ROOT].chain.get("float32") if ROOT in book.entries else None
    if worst is None or not math.isfinite(worst.error) or worst.error <= _FAR:
        return
    with evaluating(bench.module), in_float64(bench):
        exact = outputs_of(bench.module, *in_dtype(*inputs, "float64"))
    pairs = [
        (a.double().numpy(), b.double().numpy()) for a, b in zip(outputs, exact, strict=True) if not a.is_complex()
    ]
    own = max((relative(a, b) for a, b in pairs if a.shape == b.shape), default=math.inf)
    if worst.error > _SPREAD * own:
        notes.append(
            f"in float32 Keras is off by a relative {worst.error:.0e} along the chain, where PyTorch's own float32 "
            f"loses {own:.0e}: rounding picks among numbers there, or the backend's float32 is wrong"
        )
