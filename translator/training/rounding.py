"""Whether a run that drifts beyond the limit does so by rounding alone.

Training multiplies rounding: in a network whose BatchNorms see few values, by a constant factor in each step. Two
things are asked of a pair that drifted. Each step, begun with PyTorch's own weights, statistics and state of the
optimizer, must agree to the limit, so nothing but what grows from within the limit is left. And the drift must not
outgrow PyTorch's own: from the same start in the same precision, with each batch in reverse order and other kernels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils import _pytree as pytree

from translator.training.keras_side import KerasSide
from translator.training.optimizer_state import slots_by_name, state_to_keras
from translator.training.pairing import Pairing
from translator.training.torch_side import Batch, TorchSide
from translator.training.trajectory_rows import ControlRow, StepRow
from translator.verdict import Check, Difference, Effect
from translator.verify.training import NOISE, VariancePrediction, largest, ratio

if TYPE_CHECKING:
    from translator.training.conclusion import Conclusion

FACTOR = 100.0
"""The drift of Keras from PyTorch may be this many times that of PyTorch from itself: both are single samples of what
rounding happens to do, and ten times apart now and then. What is proven is proven by the steps that begin anew."""

KIND = "rounding-growth"


def begin_anew(
    pairing: Pairing, torch_side: TorchSide, keras_side: KerasSide, prediction: VariancePrediction, *, steps: int
) -> None:
    """Give Keras all that PyTorch has after `steps` steps. Raises InputError where its state can't be carried over."""
    state = torch_side.state()
    pairing.set_weights(state)
    prediction.state.update({name: state[name].copy() for name in prediction.state})
    if steps and keras_side.optimizer is not None:
        state_to_keras(pairing.links, torch_side.module, torch_side.optimizer, keras_side.optimizer, steps=steps)


def run_control(
    first: TorchSide, again: TorchSide, batches: Iterable[Batch], on_step: Callable[[int], None] = lambda step: None
) -> list[ControlRow]:
    """Train PyTorch twice from one start on the same batches; the second sums in another order."""
    rows = []
    parameters = {name for name, _ in first.module.named_parameters()}
    quiet: set[str] = set()
    for number, batch in enumerate(batches, start=1):
        on_step(number)
        loss, want = first.gradients(batch)
        want = {name: gradient.copy() for name, gradient in want.items()}
        with other_sums():
            other, got = again.gradients(reversed_batch(batch))
        most = max(map(largest, want.values()), default=0.0)
        quiet |= {name for name, gradient in want.items() if largest(gradient) <= NOISE * most}
        gradient = _apart(want.keys() - quiet, want, got)
        first.move()
        again.move()
        state, others = first.state(), again.state()
        kept = {name for name, tensor in state.items() if tensor.dtype.kind == "f"} - quiet - zero_means(state).keys()
        rows.append(
            ControlRow(
                step=number,
                loss=ratio(abs(other - loss), abs(loss)),
                gradient=gradient,
                weight=_apart(kept & parameters, state, others),
                statistic=_apart(kept - parameters, state, others),
                state=_apart_in_state(first, again, quiet),
            )
        )
    return rows


def _apart_in_state(first: TorchSide, again: TorchSide, quiet: set[str]) -> float:
    """The same for the states of both optimizers."""
    want, got = (slots_by_name(side.module, side.optimizer) for side in (first, again))
    return max((_apart(slots, slots, got[name]) for name, slots in want.items() if name not in quiet), default=0.0)


def zero_means(state: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Running means that are zero but for rounding, each with its standard deviation, which rounding is relative to."""
    found = {}
    for name, mean in state.items():
        variance = state.get(re.sub("running_mean$", "running_var", name))
        if name.endswith("running_mean") and variance is not None:
            deviation = largest(variance) ** 0.5
            if largest(mean) <= _NO_MEAN * deviation:
                found[name] = deviation
    return found


_NO_MEAN = 1e-8
"""A mean this much smaller than its standard deviation is rounding, which Adam may have enlarged."""


def _apart(names: Iterable[str], want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> float:
    """The largest relative error of any of these tensors."""
    return max((ratio(largest(got[name] - want[name]), largest(want[name])) for name in names), default=0.0)


def drifted(steps: Sequence[StepRow], concluded: Conclusion, differences: Sequence[Difference], limit: float) -> bool:
    """Whether a run began within the limit and left it, with nothing named that would be the cause."""
    named = [*differences, *concluded.differences]
    within = bool(steps) and max(_errors(steps[0])) <= limit
    return within and not all(check.ok for check in concluded.checks) and all(d.allowed for d in named)


def growth(free: Sequence[StepRow], control: Sequence[ControlRow], limit: float) -> tuple[Check, Difference | None]:
    """Hold the drift against PyTorch's own; the difference that names it, where it holds.

    At each step the largest of Keras' errors so far may be FACTOR times PyTorch's own so far. Below the limit nothing
    is asked.
    """
    worst, where, ours, theirs = 0.0, 0, 0.0, 0.0
    finite = all(math.isfinite(value) for row in free for value in _errors(row))
    finite &= all(math.isfinite(value) for row in control for value in _own(row))
    for row, own in zip(free, control, strict=True):
        ours, theirs = max(ours, *_errors(row)), max(theirs, *_own(own))
        if ours > limit and (times := ratio(ours, theirs)) > worst:
            worst, where = times, row.step
    holds = bool(free) and finite and worst <= FACTOR
    detail = (
        f"Keras from PyTorch {ours:.1e}, PyTorch from itself {theirs:.1e} after {len(free)} steps; "
        f"at most {worst:.1f} times as far, at step {where} (limit {FACTOR:g})"
    )
    check = Check(name="drift against PyTorch's own", ok=holds, subjects=len(free), detail=detail)
    if not holds:
        return check, None
    begin = next(row.step for row in free if max(_errors(row)) > limit)
    return check, Difference(
        kind=KIND,
        layers=("all",),
        torch=f"drifts as far from itself in float64, summed in another order: {theirs:.1e}",
        keras=f"beyond the limit from step {begin} on: {ours:.1e}",
        effect=Effect.NOTHING,
        detail="each step begun with PyTorch's weights, statistics and state agrees to the limit; " + detail,
        allowed=True,
    )


def _own(row: ControlRow) -> list[float]:
    return [row.loss, row.gradient, row.weight, row.statistic, row.state]


def _errors(row: StepRow) -> list[float]:
    """All errors of a step; of a variance that of the way it is kept, which the steps begun anew have settled."""
    variance = min((v for v in (row.variance, row.predicted) if v is not None), default=0.0)
    return [row.loss_error, row.gradient, row.weight, row.statistic or 0.0, variance, row.state or 0.0]


@contextmanager
def other_sums() -> Iterator[None]:
    """One thread and PyTorch's plain kernels: the same sums in another order."""
    threads = torch.get_num_threads()
    enabled, *_ = torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.mkldnn.set_flags(enabled)  # type: ignore[no-untyped-call]


def reversed_batch(batch: Batch) -> Batch:
    """The same examples in reverse order: the same mean in exact arithmetic, another order of summation."""

    def flip(value: object) -> object:
        return value.flip(0) if isinstance(value, torch.Tensor) else value

    args, kwargs, target = pytree.tree_map(flip, (batch.args, dict(batch.kwargs), batch.target))
    return Batch(args=args, kwargs=kwargs, target=target)
