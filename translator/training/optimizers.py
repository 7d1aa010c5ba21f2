"""PyTorch's optimizers mapped to Keras optimizers that take the same steps.

Native where Keras' own computes the same; else a registered class; several parameter groups become
`keras.optimizers.MultiOptimizer`, one optimizer for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from translator import runtime
from translator.errors import InputError
from translator.training.mapped import Mapped, refusal
from translator.training.schedules import GroupSchedule, map_scheduler

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """One parameter group's settings and what moves them."""

    settings: dict[str, Any]
    schedule: GroupSchedule

    @property
    def rate(self) -> Any:
        return self.schedule.learning_rate

    @property
    def still(self) -> bool:
        """The learning rate and the momentum never change."""
        return isinstance(self.rate, float) and self.schedule.momentum is None


def map_optimizer(
    optimizer: Optimizer,
    *,
    scheduler: LRScheduler | None = None,
    steps_per_epoch: int = 1,
    epochs: int | None = None,
    variables: Sequence[Sequence[str]] | None = None,
    untrained: Sequence[str] = (),
    summed: Mapping[str, int] | None = None,
) -> Mapped:
    """The Keras optimizer that takes the steps of `optimizer`, moved by `scheduler` if there is one.

    variables: for each parameter group the paths of its Keras variables, needed if there is more than one group;
    `translator.training.pairing.group_variables` finds them. untrained: paths of trainable Keras variables whose
    PyTorch parameters stand in no group: they get a rate of 0. summed: paths of variables that are the sum of so many
    parameters (the two biases of an LSTM), which PyTorch moves one by one: the sum moves as many times as fast.
    steps_per_epoch, epochs: see `map_scheduler`.
    Raises: UnsupportedError for an optimizer or a setting without a twin.
    """
    runtime.prepare()
    rule = _RULES.get(type(optimizer).__name__) if type(optimizer).__module__.startswith("torch.optim.") else None
    if rule is None:
        raise refusal(
            f"{type(optimizer).__name__}: this optimizer has no Keras twin here", f"use one of {', '.join(_RULES)}"
        )
    schedules: Sequence[GroupSchedule]
    if scheduler is None:
        schedules = [GroupSchedule(learning_rate=float(g["lr"]), native=True) for g in optimizer.param_groups]
    else:
        schedules = map_scheduler(scheduler, steps_per_epoch=steps_per_epoch, epochs=epochs)
    groups = [
        _Group(settings=dict(settings), schedule=schedule)
        for settings, schedule in zip(optimizer.param_groups, schedules, strict=True)
    ]
    if len(groups) == 1 and not untrained and not summed:
        return _with_schedule(rule(groups[0]), groups[0].schedule)
    if variables is None or len(variables) != len(groups):
        raise InputError(
            f"{len(groups)} parameter groups, and it isn't said which Keras variables belong to which",
            fix="pass variables=, one list of paths for each group (translator.training.pairing.group_variables)",
        )
    table: list[tuple[list[str], Mapped]] = []
    for group, paths in zip(groups, variables, strict=True):
        for times in sorted({(summed or {}).get(path, 1) for path in paths}):
            chosen = [path for path in paths if (summed or {}).get(path, 1) == times]
            faster = _times(group, times)
            table.append((chosen, _with_schedule(rule(faster), faster.schedule)))
    return _several(table, untrained)


def _sgd(group: _Group) -> Mapped:
    import keras

    from translator.training import registered

    s = group.settings
    momentum, decay = float(s["momentum"]), float(s["weight_decay"])
    plain = not s["maximize"] and group.schedule.momentum is None
    if plain and momentum == 0:
        return Mapped(keras=keras.optimizers.SGD(group.rate, weight_decay=decay or None), native=True)
    if plain and group.still and not decay and not s["dampening"] and momentum <= 1:
        return Mapped(
            keras=keras.optimizers.SGD(group.rate, momentum=momentum, nesterov=bool(s["nesterov"])),
            native=True,
            notes=(
                "the same only while the learning rate stands still: where a callback will move it, "
                "use translator.training.registered.TorchSGD",
            ),
        )
    return Mapped(
        keras=registered.TorchSGD(
            group.rate,
            momentum=group.schedule.momentum or momentum,
            dampening=float(s["dampening"]),
            nesterov=bool(s["nesterov"]),
            weight_decay=decay,
            maximize=bool(s["maximize"]),
        ),
        native=False,
        why="keras.optimizers.SGD keeps the learning rate in its momentum, decouples weight_decay, knows no dampening",
    )


def _adam(group: _Group) -> Mapped:
    import keras

    from translator.training import registered

    s = group.settings
    decoupled, decay = _decoupled(s), float(s["weight_decay"])
    common: dict[str, Any] = {"beta_2": float(s["betas"][1]), "epsilon": float(s["eps"]), "amsgrad": bool(s["amsgrad"])}
    if not s["eps"] and not s["maximize"] and group.schedule.momentum is None and (decoupled or not decay):
        native = keras.optimizers.AdamW if decoupled else keras.optimizers.Adam
        more = {"weight_decay": decay} if decoupled else {}
        return Mapped(keras=native(group.rate, beta_1=float(s["betas"][0]), **common, **more), native=True)
    cls = registered.TorchAdamW if decoupled else registered.TorchAdam
    return Mapped(
        keras=cls(
            group.rate,
            beta_1=group.schedule.momentum or float(s["betas"][0]),
            weight_decay=decay,
            maximize=bool(s["maximize"]),
            **common,
        ),
        native=False,
        why="keras.optimizers.Adam adds epsilon before the bias correction, and decouples weight_decay",
    )


def _rmsprop(group: _Group) -> Mapped:
    import keras

    from translator.training import registered

    s = group.settings
    momentum, decay = float(s["momentum"]), float(s["weight_decay"])
    common: dict[str, Any] = {"rho": float(s["alpha"]), "epsilon": float(s["eps"]), "centered": bool(s["centered"])}
    if not s["eps"] and not decay and not s["maximize"] and (group.still or not momentum):
        return Mapped(keras=keras.optimizers.RMSprop(group.rate, momentum=momentum, **common), native=True)
    return Mapped(
        keras=registered.TorchRMSprop(
            group.rate,
            momentum=group.schedule.momentum or momentum,
            weight_decay=decay,
            maximize=bool(s["maximize"]),
            **common,
        ),
        native=False,
        why="keras.optimizers.RMSprop adds epsilon under the root, and keeps the learning rate in its momentum",
    )


def _with_schedule(mapped: Mapped, schedule: GroupSchedule) -> Mapped:
    """The mapping with the schedule's own reason, where that isn't native."""
    why = "; ".join(text for text in (mapped.why, schedule.why) if text)
    return Mapped(keras=mapped.keras, native=mapped.native and schedule.native, why=why, notes=mapped.notes)


def _times(group: _Group, times: int) -> _Group:
    """The group for a variable that is the sum of `times` parameters: each gets the gradient of the sum.

    Exact for SGD and for decoupled decay, where the step is linear in the weights; refused where it is not.
    """
    if times == 1:
        return group
    s = group.settings
    if s["weight_decay"] and ("alpha" in s or ("betas" in s and not _decoupled(s))):
        raise refusal(
            f"weight decay on a variable that is the sum of {times} parameters: an adaptive step mixes the two",
            "weight_decay=0 for these parameters (a group of their own), or AdamW",
        )
    rate = group.rate * times if isinstance(group.rate, float) else _scaled(group.rate, times)
    schedule = GroupSchedule(
        learning_rate=rate,
        momentum=group.schedule.momentum,
        native=group.schedule.native and isinstance(rate, float),
        why=group.schedule.why,
    )
    return _Group(settings={**s, "weight_decay": s["weight_decay"] / times}, schedule=schedule)


def _decoupled(settings: dict[str, Any]) -> bool:
    return bool(settings.get("decoupled_weight_decay", False))


def _scaled(schedule: Any, factor: float) -> Any:
    from translator.training import registered

    return registered.Scaled(schedule, factor)


def _several(table: Sequence[tuple[Sequence[str], Mapped]], untrained: Sequence[str]) -> Mapped:
    """One Keras optimizer for each set of variables, by their paths."""
    import keras

    if not table:
        raise InputError(
            "no parameter is trainable: there is nothing to train", fix="requires_grad_() where it is wanted"
        )
    optimizers = {_any_of(paths): mapped.keras for paths, mapped in table if paths}
    notes = [note for _, mapped in table for note in mapped.notes]
    if untrained:
        optimizers[_any_of(untrained)] = keras.optimizers.SGD(0.0)
        notes.append(f"{len(untrained)} variables whose parameters stand in no group, or are frozen, get a rate of 0")
    (_, first) = table[0]
    return Mapped(
        keras=keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(first.keras, optimizers)),
        native=all(mapped.native for _, mapped in table),
        why="; ".join(dict.fromkeys(mapped.why for _, mapped in table if mapped.why)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _any_of(paths: Sequence[str]) -> str:
    """A pattern that matches these paths in full and nothing else."""
    return "|".join(re.escape(path) for path in paths)


_RULES: dict[str, Callable[[_Group], Mapped]] = {"SGD": _sgd, "Adam": _adam, "AdamW": _adam, "RMSprop": _rmsprop}

SUPPORTED = tuple(_RULES)
"""The optimizers of `torch.optim` that are mapped."""
