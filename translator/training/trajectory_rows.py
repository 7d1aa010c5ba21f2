"""The rows of a parity report: a step, a tensor over all steps, a step in float32. Plain data, no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
        difference = abs(self.loss_keras - self.loss_torch)
        return difference / abs(self.loss_torch) if self.loss_torch else difference


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRow:
    """One step in float64, PyTorch against itself, summed in another order: relative errors as in `StepRow`."""

    step: int
    loss: float
    gradient: float
    weight: float
    statistic: float
    state: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRow:
    """One step in float32: relative distances of all weights, and the losses.

    keras: Keras from PyTorch. noise: PyTorch from itself, with each batch in reverse order, on one thread and with
    other kernels. keras_exact, torch_exact: either from PyTorch in float64.
    """

    step: int
    keras: float
    noise: float
    keras_exact: float
    torch_exact: float
    loss_torch: float
    loss_keras: float
    loss_again: float
