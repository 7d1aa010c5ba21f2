"""Both models trained side by side in float64: every step compared, every parameter by its two names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from translator.training.keras_side import KerasSide
from translator.training.optimizer_state import compare_state
from translator.training.pairing import Pairing
from translator.training.torch_side import Batch, TorchSide
from translator.verify.training import (
    Deviation,
    Link,
    VariancePrediction,
    compare_gradients,
    compare_values,
    ratio,
)

Kind = Literal["parameter", "statistic", "variance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One step. Each error is the largest relative one: of any gradient, weight, BatchNorm mean, variance, state.

    predicted: of the variances against what Keras' own BatchNormalization should hold. None: there is nothing of it.
    """

    step: int
    loss_torch: float
    loss_keras: float
    gradient: float
    weight: float
    statistic: float | None
    variance: float | None
    predicted: float | None
    state: float | None

    @property
    def loss_error(self) -> float:
        """Relative."""
        return ratio(abs(self.loss_keras - self.loss_torch), abs(self.loss_torch))


@dataclass(slots=True, kw_only=True)
class TensorRow:
    """One PyTorch tensor and its Keras variables over all steps: the largest relative errors, and what is wrong.

    kind: a parameter, a BatchNorm mean (or another buffer), or a BatchNorm variance. gradient: None for buffers.
    predicted: of a variance, against what Keras' own BatchNormalization should hold. noise: the gradient is zero but
    for rounding. steps: in how many it was compared.
    """

    torch: str
    keras: str
    kind: Kind
    gradient: float | None = None
    weight: float = 0.0
    predicted: float | None = None
    state: float | None = None
    noise: bool = False
    steps: int = 0
    problem: str = ""

    def ok(self, limit: float) -> bool:
        """Whether all that was compared agrees, the variance with one of the two ways to keep it."""
        weight = min(self.weight, self.predicted) if self.predicted is not None else self.weight
        fine = (self.gradient is None or self.noise or self.gradient <= limit) and weight <= limit
        return bool(self.steps) and not self.problem and fine and (self.state is None or self.state <= limit)


@dataclass(slots=True, kw_only=True)
class Trajectory:
    """Everything that a run in float64 showed. sizes: how many values per channel each BatchNorm saw, by tensor."""

    steps: list[StepRow] = field(default_factory=list)
    tensors: dict[str, TensorRow] = field(default_factory=dict)
    sizes: dict[str, set[int]] = field(default_factory=dict)
    first_wrong: str = ""


def run_together(
    pairing: Pairing,
    torch_side: TorchSide,
    keras_side: KerasSide,
    batches: Iterable[Batch],
    *,
    limit: float,
    on_step: Callable[[int], None] = lambda step: None,
) -> Trajectory:
    """Train both on the same batches, from the weights they have, and compare after every step."""
    found = Trajectory()
    prediction = VariancePrediction(torch_side.module)
    try:
        for number, batch in enumerate(batches, start=1):
            on_step(number)
            _one_step(found, pairing, torch_side, keras_side, prediction, batch, number, limit)
    finally:
        prediction.close()
    found.sizes = prediction.sizes
    return found


def _one_step(
    found: Trajectory,
    pairing: Pairing,
    torch_side: TorchSide,
    keras_side: KerasSide,
    prediction: VariancePrediction,
    batch: Batch,
    number: int,
    limit: float,
) -> None:
    loss, gradients = torch_side.gradients(batch)
    step = keras_side.step(
        pairing.keras_inputs(batch, torch_side.dtype),
        pairing.keras_target(batch.target, torch_side.output, torch_side.dtype),
    )
    links = pairing.links
    grads = compare_gradients(links, gradients, step.gradients, pairing.shapes)
    torch_side.move()
    state, values = torch_side.state(), keras_side.values()
    variances = [link for link in links if link.tensors[0] in prediction.state]
    others = [link for link in links if link.tensors[0] not in prediction.state]
    parameters = {name for name, _ in torch_side.module.named_parameters()}
    weights = compare_values([x for x in others if x.tensors[0] in parameters], state, values)
    statistics = compare_values([x for x in others if x.tensors[0] not in parameters], state, values)
    raw = compare_values(variances, state, values)
    predicted = compare_values(variances, prediction.state, values)
    slots = (
        compare_state(links, torch_side.module, torch_side.optimizer, keras_side.optimizer)
        if keras_side.optimizer is not None
        else []
    )
    for deviation in grads:
        _note(found, deviation, "parameter", "gradient")
    kinds: tuple[tuple[list[Deviation], Kind], ...] = (
        (weights, "parameter"),
        (statistics, "statistic"),
        (raw, "variance"),
    )
    for group, kind in kinds:
        for deviation in group:
            _note(found, deviation, kind, "weight")
    for deviation in predicted:
        _note(found, deviation, "variance", "predicted")
    for deviation in slots:
        _note(found, deviation, "parameter", "state")
    found.steps.append(
        StepRow(
            step=number,
            loss_torch=loss,
            loss_keras=step.loss,
            gradient=_worst([d for d in grads if not d.noise]) or 0.0,
            weight=_worst(weights) or 0.0,
            statistic=_worst(statistics),
            variance=_worst(raw),
            predicted=_worst(predicted),
            state=_worst(slots),
        )
    )
    if not found.first_wrong:
        found.first_wrong = _first_wrong(number, limit, grads, weights, statistics, raw, predicted)


def _note(found: Trajectory, deviation: Deviation, kind: Kind, what: str) -> None:
    """Take one deviation into the row of its tensor."""
    name = deviation.torch.partition(": ")[0]
    row = found.tensors.setdefault(name, TensorRow(torch=name, keras=deviation.keras, kind=kind))
    before = getattr(row, what)
    setattr(row, what, max(deviation.error, before or 0.0))
    if what == "gradient":
        fresh = before is None
        row.noise = deviation.noise and (row.noise or fresh)
    if what in ("gradient", "weight"):
        row.steps += what == "weight"
    row.problem = row.problem or deviation.problem


def _worst(deviations: Sequence[Deviation]) -> float | None:
    return max((d.error for d in deviations), default=None)


def _first_wrong(
    number: int,
    limit: float,
    grads: Sequence[Deviation],
    weights: Sequence[Deviation],
    statistics: Sequence[Deviation],
    raw: Sequence[Deviation],
    predicted: Sequence[Deviation],
) -> str:
    either = [a if a.error <= b.error else b for a, b in zip(raw, predicted, strict=True)]
    for what, group in (("gradient", grads), ("weight", weights), ("statistic", [*statistics, *either])):
        for deviation in group:
            if not deviation.within(limit):
                pair = f"{deviation.torch} ↔ {deviation.keras or 'nothing'}"
                return f"step {number}, {what} of {pair} (relative {deviation.error:.1e})"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRow:
    """One step in float32: relative distances of all weights, and the losses.

    keras: Keras from PyTorch. noise: PyTorch from itself, each batch in reverse order and on one thread.
    """

    step: int
    keras: float
    noise: float
    loss_torch: float
    loss_keras: float
    loss_again: float


def run_with_noise(
    pairing: Pairing,
    first: TorchSide,
    again: TorchSide,
    keras_side: KerasSide,
    batches: Iterable[Batch],
    on_step: Callable[[int], None] = lambda step: None,
) -> list[NoiseRow]:
    """Train three times in float32 on the same batches: PyTorch, PyTorch in another order of summation, Keras."""
    rows = []
    links = [link for link in pairing.links if link.variable.trainable]
    for number, batch in enumerate(batches, start=1):
        on_step(number)
        loss, _ = first.gradients(batch)
        first.move()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            loss_again, _ = again.gradients(_reversed(batch))
            again.move()
        finally:
            torch.set_num_threads(threads)
        step = keras_side.step(
            pairing.keras_inputs(batch, first.dtype), pairing.keras_target(batch.target, first.output, first.dtype)
        )
        rows.append(
            NoiseRow(
                step=number,
                keras=_distance(links, first, keras_side),
                noise=_own_distance(first, again),
                loss_torch=loss,
                loss_keras=step.loss,
                loss_again=loss_again,
            )
        )
    return rows


def _reversed(batch: Batch) -> Batch:
    """The same examples in reverse order: the same mean in exact arithmetic, another order of summation."""
    from torch.utils import _pytree as pytree

    def flip(value: object) -> object:
        return value.flip(0) if isinstance(value, torch.Tensor) else value

    args, kwargs, target = pytree.tree_map(flip, (batch.args, dict(batch.kwargs), batch.target))
    return Batch(args=args, kwargs=kwargs, target=target)


def _distance(links: Sequence[Link], side: TorchSide, keras_side: KerasSide) -> float:
    """‖Keras − PyTorch‖ / ‖PyTorch‖ over all trained weights."""
    from translator.bindings import to_keras

    state, values = side.state(), keras_side.values()
    pairs = ((to_keras(link.binding, state).astype("float64"), values[link.path]) for link in links)
    sums = [(float(((got - want) ** 2).sum()), float((want**2).sum())) for want, got in pairs]
    return ratio(sum(d for d, _ in sums) ** 0.5, sum(w for _, w in sums) ** 0.5)


def _own_distance(first: TorchSide, again: TorchSide) -> float:
    pairs = zip(first.module.parameters(), again.module.parameters(), strict=True)
    doubles = [(a.detach().double(), b.detach().double()) for a, b in pairs]
    sums = [(float((b - a).square().sum()), float(a.square().sum())) for a, b in doubles]
    return ratio(sum(d for d, _ in sums) ** 0.5, sum(w for _, w in sums) ** 0.5)
