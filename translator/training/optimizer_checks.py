"""Does a Keras optimizer take the steps of the one that was mapped from PyTorch's? What is wrong is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from translator.training.keras_side import numbers
from translator.training.mapped import Mapped, exact_in_float64
from translator.training.pairing import Pairing
from translator.verdict import Difference, Effect
from translator.verify.training import ratio

_LIMIT = 1e-8
"""Relative error up to which two float64 computations are the same."""

_MEASURED = 1e-6
"""How exactly a rate is read off a schedule, which may keep it in float32."""

_FEWEST, _MOST = 4, 200
"""Steps that both optimizers take: as many as are trained, within these."""


def rates_wrong(optimizer: Any, exact: Any, steps: int, where: str) -> Difference | None:
    """Whether the learning rate of the user's optimizer, with its schedule, is PyTorch's at each of these steps."""
    if not (_scheduled(optimizer) or _scheduled(exact)):  # one rate for all steps is a setting
        return None
    ours, theirs = _rates(exact_in_float64(optimizer), steps), _rates(exact_in_float64(exact), steps)
    wrong = [step for step in range(steps) if ratio(abs(ours[step] - theirs[step]), abs(theirs[step])) > _MEASURED]
    if not wrong:
        return None
    first = wrong[0]
    return Difference(
        kind="optimizer-schedule",
        layers=(where,),
        torch=f"a rate of {theirs[first]:.6g} at step {first + 1}",
        keras=f"a rate of {ours[first]:.6g} at step {first + 1}, wrong at {len(wrong)} of {steps} steps",
        effect=Effect.TRAINING,
        fix="the schedule that translator.training.schedules.map_scheduler makes, given steps_per_epoch",
    )


def _scheduled(optimizer: Any) -> bool:
    return isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule)


def _rates(optimizer: Any, steps: int) -> list[float]:
    rate = optimizer._learning_rate
    if not _scheduled(optimizer):
        return [float(rate)] * steps
    return [float(rate(keras.ops.convert_to_tensor(step, dtype="int64"))) for step in range(steps)]


def optimizer_wrong(pairing: Pairing, optimizer: Any, exact: Mapped, steps: int) -> Iterator[Difference]:
    """Whether the user's optimizer takes PyTorch's steps, and at PyTorch's rates, for the variables of each group.

    Steps and rates are each tested without the other. What is wrong for some variables only is said with the first.
    """
    pairs: dict[tuple[str, int], list[keras.Variable]] = {}
    for variable in _trained(pairing):
        theirs, right = _of(optimizer, variable), _of(exact.keras, variable)
        pairs.setdefault((repr((type(theirs), theirs.get_config())), id(right)), []).append(variable)
    for variables in pairs.values():
        more = f" and {len(variables) - 1} more" if len(variables) > 1 else ""
        where = f"optimizer of {variables[0].path}{more}" if len(pairs) > 1 else "optimizer"
        theirs, right = _of(optimizer, variables[0]), _of(exact.keras, variables[0])
        yield from _one_wrong(theirs, right, exact, steps, where)


def _trained(pairing: Pairing) -> list[keras.Variable]:
    """The variables that hold parameters which PyTorch trains."""
    needed = {n for n, p in pairing.module.named_parameters(remove_duplicate=False) if p.requires_grad}
    return [x.variable for x in pairing.links if x.variable.trainable and needed.intersection(x.tensors)]


def _of(optimizer: Any, variable: keras.Variable) -> Any:
    """The optimizer that moves a variable, out of its wrapper."""
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return optimizer._optimizer_map(variable)
    return getattr(optimizer, "inner_optimizer", optimizer)


def _one_wrong(theirs: Any, right: Any, exact: Mapped, steps: int, where: str) -> Iterator[Difference]:
    rates = rates_wrong(theirs, right, steps, where)
    if rates is not None:
        yield rates
        settings = {**theirs.get_config(), "learning_rate": right.get_config()["learning_rate"]}
        theirs = type(theirs).from_config(settings)
    rule = rule_wrong(theirs, right, exact, max(_FEWEST, min(steps, _MOST)), where)
    if rule is not None:
        yield rule


def rule_wrong(
    optimizer: Any, right: Any, exact: Mapped, steps: int, where: str, shape: tuple[int, ...] = (64,)
) -> Difference | None:
    """Whether both take the same steps, given the same gradients, large and tiny ones."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape)
    gradients = [rng.normal(size=shape) * 10.0 ** rng.uniform(-9, 2, size=shape) for _ in range(steps)]
    ends = []
    for candidate in (optimizer, right):
        fresh = exact_in_float64(candidate)
        variable = keras.Variable(start, dtype="float64")
        fresh.build([variable])
        for gradient in gradients:
            fresh.apply([keras.ops.convert_to_tensor(gradient, dtype="float64")], [variable])
        ends.append(numbers(variable))
    got, want = ends
    moved = float(np.abs(want - start).max())
    if ratio(float(np.abs(got - want).max()), moved) <= _LIMIT:
        return None
    named = dict(_settings(optimizer, right))
    return Difference(
        kind="optimizer-" + "-".join(named) if named else "optimizer",
        layers=(where,),
        torch=", ".join(f"{k}={b}" for k, (_, b) in named.items()) or Mapped(keras=right, native=True).name,
        keras=", ".join(f"{k}={a}" for k, (a, _) in named.items()) or f"{type(optimizer).__name__} (another rule)",
        effect=Effect.TRAINING,
        fix=f"use {Mapped(keras=right, native=True).name}({', '.join(f'{k}={b}' for k, (_, b) in named.items())})"
        + (f": {exact.why}" if exact.why else ""),
    )


def _settings(got: Any, want: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The hyperparameters that both have and that differ, with both values."""
    ours, theirs = got.get_config(), want.get_config()
    for key in (
        "learning_rate",
        "momentum",
        "dampening",
        "nesterov",
        "beta_1",
        "beta_2",
        "rho",
        "epsilon",
        "amsgrad",
        "centered",
    ):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, dict) or isinstance(b, dict):  # schedules: their rates are compared, not how they are made
            continue
        if key in ours and key in theirs and a != b and not (_close(a, b)):
            yield key, (a, b)
    for key in ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "gradient_accumulation_steps"):
        a, b = ours.get(key) or 0.0, theirs.get(key) or 0.0
        if a != b:
            yield key, (a, b)


def _close(a: Any, b: Any) -> bool:
    """Equal but for float32: a learning rate is kept as a variable."""
    return isinstance(a, float) and isinstance(b, float) and bool(np.float32(a) == np.float32(b))
