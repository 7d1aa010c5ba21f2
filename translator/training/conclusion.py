"""What follows from a run side by side: the checks, and the differences that are forced or found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from translator.training.pairing import Pairing
from translator.training.trajectory import Trajectory
from translator.training.trajectory_rows import StepRow, TensorRow
from translator.verdict import Check, Difference, Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """batchnorm: "exact", "native", or "" where there is none."""

    checks: tuple[Check, ...]
    differences: tuple[Difference, ...]
    batchnorm: str


def conclude(pairing: Pairing, found: Trajectory, limit: float, steps: int) -> Conclusion:
    """Judge what a run in float64 showed."""
    variances = [row for row in found.tensors.values() if row.kind == "variance"]
    batchnorm = _batchnorm(variances, limit)
    differences = [*_forced(found, variances, batchnorm, limit), *_only_keras(pairing), *_frozen(pairing, found)]
    return Conclusion(
        checks=tuple(_checks(pairing, found, variances, batchnorm, limit, steps)),
        differences=tuple(differences),
        batchnorm=batchnorm,
    )


def _batchnorm(variances: Sequence[TensorRow], limit: float) -> str:
    if not variances:
        return ""
    return "exact" if all(row.weight <= limit for row in variances) else "native"


def _checks(
    pairing: Pairing, found: Trajectory, variances: Sequence[TensorRow], batchnorm: str, limit: float, steps: int
) -> Iterator[Check]:
    rows = list(found.tensors.values())
    graded = [row for row in rows if row.gradient is not None]
    parameters = [row for row in rows if row.kind == "parameter" and row.steps]
    worst_loss = max((row.loss_error for row in found.steps), default=0.0)
    yield Check(
        name="losses",
        ok=len(found.steps) == steps and all(_fine(row.loss_error, limit) for row in found.steps),
        subjects=len(found.steps),
        detail=f"largest relative error {worst_loss:.1e}",
    )
    quiet = [row for row in graded if row.noise]
    loud = [row for row in graded if not row.noise]
    yield Check(
        name="gradients of every parameter",
        ok=bool(loud) and all(not r.problem and (r.noise or _fine(r.gradient, limit)) for r in graded),
        subjects=len(graded),
        detail=_worst(loud, "gradient") + (f"; {len(quiet)} are zero but for rounding on both sides" if quiet else ""),
    )
    yield Check(
        name="weights after every step",
        ok=bool(parameters) and all(not r.problem and _fine(r.weight, limit) for r in parameters),
        subjects=len(parameters),
        detail=_worst(parameters, "weight"),
    )
    means = [row for row in rows if row.kind == "statistic"]
    if means:
        ok = all(not r.problem and _fine(r.weight, limit) for r in means)
        yield Check(name="BatchNorm means", ok=ok, subjects=len(means), detail=_worst(means, "weight"))
    if variances:
        what = "weight" if batchnorm == "exact" else "predicted"
        name = "BatchNorm variances" + ("" if batchnorm == "exact" else ", as predicted for Keras' own layer")
        ok = all(not r.problem and _fine(getattr(r, what), limit) for r in variances)
        yield Check(name=name, ok=ok, subjects=len(variances), detail=_worst(variances, what))
    held = [row for row in rows if row.state is not None]
    if held:
        ok = all(_fine(r.state, limit) for r in held)
        yield Check(name="state of the optimizer", ok=ok, subjects=len(held), detail=_worst(held, "state"))
    yield _learned(found.steps)


def _learned(steps: Sequence[StepRow]) -> Check:
    """A run whose loss never moves proves nothing."""
    losses = {row.loss_torch for row in steps}
    moved = len(steps) == 1 or len(losses) > 1
    return Check(name="something was learned", ok=moved and bool(steps), subjects=len(steps))


def _fine(error: float | None, limit: float) -> bool:
    return error is not None and error <= limit


def _worst(rows: Sequence[TensorRow], what: str) -> str:
    if not rows:
        return "nothing was compared"
    row = max(rows, key=lambda r: (bool(r.problem), getattr(r, what) or 0.0))
    if row.problem:
        return f"{row.torch}: {row.problem}"
    return f"largest relative error {getattr(row, what):.1e}, at {row.torch} ↔ {row.keras}"


def _forced(found: Trajectory, variances: Sequence[TensorRow], batchnorm: str, limit: float) -> Iterator[Difference]:
    if batchnorm != "native" or not all(_fine(row.predicted, limit) for row in variances):
        return
    sizes = sorted({n for row in variances for n in found.sizes.get(row.torch, ())})
    factors = sorted({round(n / (n - 1), 6) for n in sizes if n > 1})
    shown = f"{factors[0]:g}" if len(factors) == 1 else f"{factors[0]:g} … {factors[-1]:g}"
    yield Difference(
        kind="batchnorm-variance",
        layers=tuple(row.torch.rpartition(".")[0] for row in variances),
        torch="stores the batch's variance divided by n − 1",
        keras="stores it divided by n",
        effect=Effect.TRAINING,
        fix="--exact-batchnorm: translator.training.batchnorm.with_exact_batchnorm(model)",
        detail=f"n/(n − 1) = {shown} here (n = {', '.join(map(str, sizes))} values per channel), predicted at each "
        f"step and confirmed to {max(r.predicted or 0.0 for r in variances):.0e}; the gap itself has reached "
        f"{max(r.weight for r in variances):.1e}",
        allowed=True,
    )


def _only_keras(pairing: Pairing) -> Iterator[Difference]:
    alone = [v.path for v, _ in pairing.alone if v.trainable]
    if alone:
        yield Difference(
            kind="only-in-keras",
            layers=tuple(alone),
            torch="no such parameter",
            keras="trained",
            effect=Effect.TRAINING,
            fix="leave it out of the layer, e.g. use_bias=False",
        )


def _frozen(pairing: Pairing, found: Trajectory) -> Iterator[Difference]:
    trained = {row.torch for row in found.tensors.values() if row.gradient is not None}
    still = [x for x in pairing.links if not x.variable.trainable and trained.intersection(x.tensors)]
    moving = [
        x.path
        for x in pairing.links
        if x.variable.trainable and not trained.intersection(x.tensors) and not _known_zero(x.tensors, found)
    ]
    if still:
        yield Difference(
            kind="frozen-in-keras",
            layers=tuple(x.path for x in still),
            torch="trained",
            keras="not trainable",
            effect=Effect.TRAINING,
            fix="set trainable=True on the layer",
        )
    if moving:
        yield Difference(
            kind="frozen-in-pytorch",
            layers=tuple(moving),
            torch="has no gradient",
            keras="trainable",
            effect=Effect.NOTHING,
            detail="PyTorch computes no gradient for it: frozen, or not used for this output",
        )


def _known_zero(tensors: Sequence[str], found: Trajectory) -> bool:
    """Whether the weights stayed equal anyway."""
    rows = [found.tensors[name] for name in tensors if name in found.tensors]
    return bool(rows) and all(row.weight == 0.0 for row in rows)
