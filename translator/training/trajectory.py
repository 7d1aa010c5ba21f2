"""Both models trained side by side in float64: every step compared, every parameter by its two names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from translator.bindings import to_keras
from translator.training.keras_side import KerasSide
from translator.training.optimizer_state import compare_state
from translator.training.pairing import Pairing
from translator.training.rounding import begin_anew, other_sums, reversed_batch, zero_means
from translator.training.torch_side import Batch, TorchSide
from translator.training.trajectory_rows import Kind, NoiseRow, StepRow, TensorRow
from translator.verify.training import (
    Deviation,
    Link,
    VariancePrediction,
    compare_gradients,
    compare_values,
    largest,
    ratio,
)


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
    labels: Callable[[Batch], np.ndarray] | None = None,
    anew: bool = False,
) -> Trajectory:
    """Train both on the same batches, from the weights they have, and compare after every step.

    labels: what the Keras loss is given as the target; None lays PyTorch's target out as the output is.
    anew: before each step, give Keras the weights, statistics and state of the optimizer that PyTorch has.
    """
    found = Trajectory()
    prediction = VariancePrediction(torch_side.module)
    try:
        for number, batch in enumerate(batches, start=1):
            on_step(number)
            if anew:
                begin_anew(pairing, torch_side, keras_side, prediction, steps=number - 1)
            target = (
                labels(batch) if labels else pairing.keras_target(batch.target, torch_side.output, torch_side.dtype)
            )
            _one_step(found, pairing, torch_side, keras_side, prediction, batch, target, number, limit)
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
    target: np.ndarray,
    number: int,
    limit: float,
) -> None:
    loss, gradients = torch_side.gradients(batch)
    step = keras_side.step(pairing.keras_inputs(batch, torch_side.dtype), target)
    links = pairing.links
    grads = compare_gradients(links, gradients, step.gradients, pairing.shapes)
    for deviation in grads:
        _note(found, deviation, "parameter", "gradient")
    quiet = {name for name, row in found.tensors.items() if row.noise}
    torch_side.move()
    state, values = torch_side.state(), keras_side.values()
    variances = [link for link in links if link.tensors[0] in prediction.state]
    others = [link for link in links if link.tensors[0] not in prediction.state]
    parameters = {name for name, _ in torch_side.module.named_parameters()}
    most = max((largest(state[name]) for name in parameters if name in state), default=0.0)
    scales = dict.fromkeys(quiet, most)
    weights = compare_values([x for x in others if x.tensors[0] in parameters], state, values, scales)
    statistics = compare_values([x for x in others if x.tensors[0] not in parameters], state, values, zero_means(state))
    raw = compare_values(variances, state, values)
    predicted = compare_values(variances, prediction.state, values)
    slots = (
        compare_state(links, torch_side.module, torch_side.optimizer, keras_side.optimizer, quiet)
        if keras_side.optimizer is not None
        else []
    )
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


def run_with_noise(
    pairing: Pairing,
    torch_sides: tuple[TorchSide, TorchSide, TorchSide],
    keras_side: KerasSide,
    batches: Iterable[Batch],
    on_step: Callable[[int], None] = lambda step: None,
) -> list[NoiseRow]:
    """Train on the same batches in Keras and three times in PyTorch: float32, float32 again, float64.

    The second sums in another order. All start from the weights they have.
    """
    rows = []
    first, again, exact = torch_sides
    links = [link for link in pairing.links if link.variable.trainable and link.binding.pieces]
    for number, batch in enumerate(batches, start=1):
        on_step(number)
        loss, _ = first.gradients(batch)
        with other_sums():
            loss_again, _ = again.gradients(reversed_batch(batch))
        exact.gradients(batch)
        for side in torch_sides:
            side.move()
        step = keras_side.step(
            pairing.keras_inputs(batch, first.dtype), pairing.keras_target(batch.target, first.output, first.dtype)
        )
        values = keras_side.values()
        sides = [_weights(links, side.state()) for side in torch_sides]
        keras_weights = {link.path: values[link.path] for link in links}
        rows.append(
            NoiseRow(
                step=number,
                keras=_distance(keras_weights, sides[0]),
                noise=_distance(sides[1], sides[0]),
                keras_exact=_distance(keras_weights, sides[2]),
                torch_exact=_distance(sides[0], sides[2]),
                loss_torch=loss,
                loss_keras=step.loss,
                loss_again=loss_again,
            )
        )
    return rows


def _weights(links: Sequence[Link], state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's weights as they lie in Keras, by path."""
    return {link.path: to_keras(link.binding, state) for link in links}


def _distance(got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> float:
    """‖got − want‖ / ‖want‖ over all weights, in float64."""
    far = sum(float(np.square(got[path].astype(np.float64) - value).sum()) for path, value in want.items())
    size = sum(float(np.square(value.astype(np.float64)).sum()) for value in want.values())
    return ratio(far**0.5, size**0.5)
