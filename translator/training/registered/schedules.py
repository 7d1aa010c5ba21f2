"""PyTorch's learning-rate schedulers as Keras schedules.

A Keras schedule is asked at every step, a PyTorch scheduler usually moves once an epoch: `steps_per_epoch` says how
many steps share one value (1 where the PyTorch loop calls `scheduler.step()` after every batch). The epoch is found by
integer division: Keras' own `ExponentialDecay(staircase=True)` divides floats, which TensorFlow's graph optimizer
turns into a product with the reciprocal, and then 41/41 is just below 1 and the decay comes one step late.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable(package="translator")


class _PerEpoch(keras.optimizers.schedules.LearningRateSchedule, ABC):  # type: ignore[misc]
    """A value of the epoch, `step // steps_per_epoch`, in the dtype `floatx`."""

    def __init__(self, steps_per_epoch: int = 1) -> None:
        super().__init__()
        if steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: Any) -> Any:
        return self.at_epoch(ops.floor_divide(ops.cast(step, "int32"), self.steps_per_epoch))

    @abstractmethod
    def at_epoch(self, epoch: Any) -> Any:
        """The rate in that epoch, counted from 0."""

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"steps_per_epoch": self.steps_per_epoch}


def _number(value: float) -> Any:
    """A scalar of `floatx`. `ops.cast` would round it to float32 first, on TensorFlow."""
    return ops.convert_to_tensor(value, dtype=keras.config.floatx())


@register
class EpochDecay(_PerEpoch):
    """`torch.optim.lr_scheduler.StepLR` and `ExponentialLR`: `initial · gamma ** (epoch // every)`."""

    def __init__(self, initial: float, gamma: float, every: int = 1, steps_per_epoch: int = 1) -> None:
        super().__init__(steps_per_epoch)
        self.initial, self.gamma, self.every = float(initial), float(gamma), int(every)

    def at_epoch(self, epoch: Any) -> Any:
        """The rate after the decays so far."""
        decays = ops.cast(ops.floor_divide(epoch, self.every), keras.config.floatx())
        return self.initial * ops.power(_number(self.gamma), decays)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "initial": self.initial, "gamma": self.gamma, "every": self.every}


@register
class CosineAnnealing(_PerEpoch):
    """`torch.optim.lr_scheduler.CosineAnnealingLR`: it rises again after `period` epochs; Keras' CosineDecay stays."""

    def __init__(self, initial: float, period: int, minimum: float = 0.0, steps_per_epoch: int = 1) -> None:
        super().__init__(steps_per_epoch)
        self.initial, self.period, self.minimum = float(initial), int(period), float(minimum)

    def at_epoch(self, epoch: Any) -> Any:
        """`minimum + (initial − minimum) · (1 + cos(π · epoch / period)) / 2`."""
        place = ops.cast(ops.mod(epoch, 2 * self.period), keras.config.floatx())
        cosine = ops.cos((math.pi / self.period) * place)
        return self.minimum + (self.initial - self.minimum) / 2 * (1.0 + cosine)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "initial": self.initial, "period": self.period, "minimum": self.minimum}


@register
class OneCycle(_PerEpoch):
    """`torch.optim.lr_scheduler.OneCycleLR`, for the learning rate or for the momentum that it cycles.

    ends: the last epoch of each phase, a fraction as in PyTorch. values: the value at the start and after each phase.
    One epoch after the last phase PyTorch raises; a Keras schedule can't, and gives `after`: a learning rate of 0 ends
    the training, nothing moves any more.
    """

    def __init__(
        self,
        ends: Sequence[float],
        values: Sequence[float],
        anneal: str = "cos",
        after: float = 0.0,
        steps_per_epoch: int = 1,
    ) -> None:
        super().__init__(steps_per_epoch)
        if len(values) != len(ends) + 1:
            raise ValueError(f"{len(ends)} phases need {len(ends) + 1} values, got {len(values)}")
        if anneal not in {"cos", "linear"}:
            raise ValueError(f"anneal must be 'cos' or 'linear', got {anneal!r}")
        self.ends, self.values = [float(e) for e in ends], [float(v) for v in values]
        self.anneal, self.after = anneal, float(after)

    def at_epoch(self, epoch: Any) -> Any:
        """The value inside the phase that the epoch belongs to."""
        now = ops.cast(epoch, keras.config.floatx())
        starts = [0.0, *self.ends[:-1]]
        limits = [*self.ends[:-1], self.ends[-1] + 1.0]  # PyTorch lets the last phase run over by one
        value = _number(self.after)
        phases = list(zip(starts, self.ends, limits, self.values[:-1], self.values[1:], strict=True))
        for start, end, limit, old, new in reversed(phases):
            share = (now - start) / (end - start)
            if self.anneal == "cos":
                inside = new + (old - new) / 2.0 * (ops.cos(math.pi * share) + 1.0)
            else:
                inside = (new - old) * share + old
            value = ops.where(now <= limit, inside, value)
        return value

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "ends": self.ends,
            "values": self.values,
            "anneal": self.anneal,
            "after": self.after,
        }


@register
class Scaled(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Another schedule times a number: for a variable that stands for the sum of several PyTorch parameters."""

    def __init__(self, schedule: Any, factor: float) -> None:
        super().__init__()
        if isinstance(schedule, dict):
            schedule = keras.optimizers.schedules.deserialize(schedule)
        self.schedule, self.factor = schedule, float(factor)

    def __call__(self, step: Any) -> Any:
        """The other schedule's value, scaled."""
        return self.schedule(step) * self.factor

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "factor": self.factor}


@register
class EpochTable(_PerEpoch):
    """Any scheduler that depends on the epoch alone (LambdaLR …), written down value by value.

    After the last row the value is `after`: 0 ends the training, nothing moves any more.
    """

    def __init__(self, values: Sequence[float], after: float = 0.0, steps_per_epoch: int = 1) -> None:
        super().__init__(steps_per_epoch)
        self.values, self.after = [float(v) for v in values], float(after)

    def at_epoch(self, epoch: Any) -> Any:
        """Row `epoch` of the table."""
        rows = ops.convert_to_tensor([*self.values, self.after], dtype=keras.config.floatx())
        return ops.take(rows, ops.minimum(epoch, len(self.values)))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "values": self.values, "after": self.after}
