"""PyTorch's optimizers mapped to Keras optimizers that take the same steps.

Native where Keras' own computes the same; else a registered class; several parameter groups become
`keras.optimizers.MultiOptimizer`, one optimizer for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
) -> Mapped:
    """The Keras optimizer that takes the steps of `optimizer`, moved by `scheduler` if there is one.

    variables: for each parameter group the paths of its Keras variables, needed if there is more than one group;
    `translator.training.links.group_variables` finds them. untrained: paths of trainable Keras variables whose PyTorch
    parameters stand in no group: they get a rate of 0. steps_per_epoch, epochs: see `map_scheduler`.
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
    mapped = [
        _with_schedule(rule(_Group(settings=dict(settings), schedule=schedule)), schedule)
        for settings, schedule in zip(optimizer.param_groups, schedules, strict=True)
    ]
    if len(mapped) == 1 and not untrained:
        return mapped[0]
    return _several(mapped, variables, untrained)


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
    decoupled, decay = bool(s.get("decoupled_weight_decay", False)), float(s["weight_decay"])
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


def _several(mapped: Sequence[Mapped], variables: Sequence[Sequence[str]] | None, untrained: Sequence[str]) -> Mapped:
    """One Keras optimizer for each parameter group, by the paths of the variables."""
    import keras

    if variables is None or len(variables) != len(mapped):
        raise InputError(
            f"{len(mapped)} parameter groups, and it isn't said which Keras variables belong to which",
            fix="pass variables=, one list of paths for each group (translator.training.links.group_variables)",
        )
    table = {_any_of(paths): m.keras for paths, m in zip(variables, mapped, strict=True) if paths}
    if untrained:
        table[_any_of(untrained)] = keras.optimizers.SGD(0.0)
    fallback = mapped[0].keras
    notes = [note for m in mapped for note in m.notes]
    if untrained:
        notes.append(f"{len(untrained)} variables whose parameters stand in no group get a learning rate of 0")
    return Mapped(
        keras=keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(fallback, table)),
        native=all(m.native for m in mapped),
        why="; ".join(dict.fromkeys(m.why for m in mapped if m.why)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _any_of(paths: Sequence[str]) -> str:
    """A pattern that matches these paths in full and nothing else."""
    return "|".join(re.escape(path) for path in paths)


_RULES: dict[str, Callable[[_Group], Mapped]] = {"SGD": _sgd, "Adam": _adam, "AdamW": _adam, "RMSprop": _rmsprop}

SUPPORTED = tuple(_RULES)
"""The optimizers of `torch.optim` that are mapped."""
