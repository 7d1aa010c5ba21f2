"""PyTorch's learning-rate schedulers mapped to Keras schedules, one for each parameter group.

The article's "divide by 3 every 20 epochs" is `StepLR(step_size=20, gamma=1/3)`.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from translator import runtime
from translator.training.mapped import refusal

if TYPE_CHECKING:
    from torch.optim import lr_scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSchedule:
    """What one parameter group's hyperparameters do over time.

    learning_rate: a Keras schedule, or a number that stands still. momentum: a schedule of SGD's momentum or of Adam's
    beta1, where the scheduler cycles it. native, why: as in `Mapped`.
    """

    learning_rate: Any
    momentum: Any = None
    native: bool = False
    why: str = ""


def map_scheduler(
    scheduler: lr_scheduler.LRScheduler, *, steps_per_epoch: int = 1, epochs: int | None = None
) -> tuple[GroupSchedule, ...]:
    """The schedule of each parameter group of the scheduler's optimizer.

    steps_per_epoch: the optimizer steps between two `scheduler.step()`: 1 where it is called after every batch.
    epochs: how many values to write down for a scheduler that can only be tabulated (LambdaLR and all that have no rule
    here); afterwards the rate is 0.
    Raises: UnsupportedError for a scheduler that looks at a metric, or that was moved before it was mapped and has no
    closed form.
    """
    runtime.prepare()
    import torch

    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise _plateau(scheduler)
    rule = _RULES.get(type(scheduler).__name__) if type(scheduler).__module__ == "torch.optim.lr_scheduler" else None
    groups = range(len(scheduler.optimizer.param_groups))
    if rule is not None:
        return tuple(rule(scheduler, group, steps_per_epoch) for group in groups)
    return _table(scheduler, steps_per_epoch, epochs)


def _step(scheduler: lr_scheduler.StepLR, group: int, steps: int) -> GroupSchedule:
    from translator.training import registered

    schedule = registered.EpochDecay(
        float(scheduler.base_lrs[group]), gamma=scheduler.gamma, every=scheduler.step_size, steps_per_epoch=steps
    )
    return GroupSchedule(learning_rate=schedule, why=_WHY_DECAY)


def _exponential(scheduler: lr_scheduler.ExponentialLR, group: int, steps: int) -> GroupSchedule:
    from translator.training import registered

    schedule = registered.EpochDecay(float(scheduler.base_lrs[group]), gamma=scheduler.gamma, steps_per_epoch=steps)
    return GroupSchedule(learning_rate=schedule, why=_WHY_DECAY)


def _multi_step(scheduler: lr_scheduler.MultiStepLR, group: int, steps: int) -> GroupSchedule:
    import keras

    value = float(scheduler.base_lrs[group])
    values, boundaries = [value], []
    for milestone, times in sorted(scheduler.milestones.items()):
        value *= scheduler.gamma**times
        values.append(value)
        boundaries.append(int(milestone) * steps - 1)  # Keras counts the boundary itself to the old value
    if not boundaries:
        return GroupSchedule(learning_rate=value, native=True)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
    return GroupSchedule(learning_rate=schedule, native=True)


def _cosine(scheduler: lr_scheduler.CosineAnnealingLR, group: int, steps: int) -> GroupSchedule:
    from translator.training import registered

    schedule = registered.CosineAnnealing(
        float(scheduler.base_lrs[group]), period=scheduler.T_max, minimum=scheduler.eta_min, steps_per_epoch=steps
    )
    return GroupSchedule(
        learning_rate=schedule,
        why="keras.optimizers.schedules.CosineDecay moves within the epoch and stays at its end, PyTorch rises again",
    )


def _one_cycle(scheduler: lr_scheduler.OneCycleLR, group: int, steps: int) -> GroupSchedule:
    from translator.training import registered

    settings = scheduler.optimizer.param_groups[group]
    phases: list[Any] = list(scheduler._schedule_phases)

    def cycle(what: str) -> registered.OneCycle:
        values = [settings[phases[0][f"start_{what}"]], *(settings[p[f"end_{what}"]] for p in phases)]
        ends = [p["end_step"] for p in phases]
        after = 0.0 if what == "lr" else values[-1]
        return registered.OneCycle(ends, values, anneal=scheduler._anneal_func_type, after=after, steps_per_epoch=steps)

    return GroupSchedule(
        learning_rate=cycle("lr"),
        momentum=cycle("momentum") if scheduler.cycle_momentum else None,
        why="keras.optimizers.schedules has no one-cycle policy",
    )


def _table(scheduler: lr_scheduler.LRScheduler, steps: int, epochs: int | None) -> tuple[GroupSchedule, ...]:
    """Any other scheduler, played for `epochs` epochs and written down."""
    from translator.training import registered

    name = type(scheduler).__name__
    if epochs is None:
        raise refusal(
            f"{name}: has no closed form here, its values can only be written down",
            "say for how many epochs: map_scheduler(scheduler, epochs=…)",
        )
    if scheduler.last_epoch != 0:
        raise refusal(
            f"{name}: was moved {scheduler.last_epoch} times before it was mapped, its first values are unknown",
            "map it when it is new; where training stands is taken over with the optimizer's state",
        )
    rows = _play(scheduler, epochs)
    momentum = _MOMENTUM_KEYS.intersection(scheduler.optimizer.param_groups[0])
    schedules = []
    for group in range(len(scheduler.optimizer.param_groups)):
        rates = [row[group][0] for row in rows]
        others = [row[group][1] for row in rows]
        cycled = bool(momentum) and len(set(others)) > 1
        schedules.append(
            GroupSchedule(
                learning_rate=registered.EpochTable(rates, steps_per_epoch=steps),
                momentum=registered.EpochTable(others, after=others[-1], steps_per_epoch=steps) if cycled else None,
                why=f"keras.optimizers.schedules has no {name}",
            )
        )
    return tuple(schedules)


def _play(scheduler: lr_scheduler.LRScheduler, epochs: int) -> list[list[tuple[float, float]]]:
    """The (rate, momentum) of each group in each epoch, from a copy that shares parameters and leaves them alone."""
    optimizer = scheduler.optimizer
    shared = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    memo: dict[int, Any] = {**shared, id(optimizer.state): defaultdict(dict)}
    played = copy.deepcopy(scheduler, memo)
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the optimizer takes no steps here: it isn't meant to
        for epoch in range(epochs):
            if epoch:  # a function of the epoch may be a table that ends with the last one
                played.step()
            rows.append([(float(group["lr"]), _momentum(group)) for group in played.optimizer.param_groups])
    return rows


def _momentum(group: dict[str, Any]) -> float:
    return float(group["betas"][0]) if "betas" in group else float(group.get("momentum", 0.0))


def _plateau(scheduler: lr_scheduler.ReduceLROnPlateau) -> Exception:
    """The refusal of a scheduler that follows a metric, with the callback that comes nearest."""
    relative = scheduler.threshold_mode == "rel"
    return refusal(
        "ReduceLROnPlateau: follows a metric, which a schedule can't see"
        + (", and its threshold is relative, which Keras' callback lacks" if relative else ""),
        f"keras.callbacks.ReduceLROnPlateau(factor={scheduler.factor}, patience={scheduler.patience}, "
        f"cooldown={scheduler.cooldown}, min_lr={min(scheduler.min_lrs)}, mode={scheduler.mode!r}, "
        f"min_delta={0.0 if relative else scheduler.threshold})"
        + (" after threshold_mode='abs' on the PyTorch side" if relative else ""),
    )


_WHY_DECAY = (
    "keras.optimizers.schedules.ExponentialDecay(staircase=True) divides floats: in a TensorFlow graph it decays one "
    "step late for many periods (41, 47, 55 …)"
)
_MOMENTUM_KEYS = {"momentum", "betas"}
_RULES: dict[str, Callable[[Any, int, int], GroupSchedule]] = {
    "StepLR": _step,
    "MultiStepLR": _multi_step,
    "ExponentialLR": _exponential,
    "CosineAnnealingLR": _cosine,
    "OneCycleLR": _one_cycle,
}
