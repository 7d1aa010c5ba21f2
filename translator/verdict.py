"""The outcome of a proof or an audit as plain data: what every report is made from.

A verdict can't be true by accident: nothing expected, something expected and not checked, NaN, a missing output or
an empty list are failures, and `Report.verdict` is computed from the findings, never set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """equal: nothing differs. explained: same function in inference, each difference named. different: the rest."""

    EQUAL = "equal"
    EXPLAINED = "explained"
    DIFFERENT = "different"


class Effect(StrEnum):
    """What a difference changes."""

    INFERENCE = "inference"
    TRAINING = "training"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One named difference between the two models.

    kind: a stable word ("epsilon", "padding", "conv-bias", "bn-statistics" …). layers: of PyTorch, or of Keras where
    PyTorch has none. torch, keras: both values as text. effect: what it changes. fix: the Keras code that mends it.
    allowed: the user asked for it (--fold) or the frameworks force it: it does not fail the proof.
    """

    kind: str
    layers: tuple[str, ...]
    torch: str
    keras: str
    effect: Effect
    fix: str = ""
    detail: str = ""
    allowed: bool = False

    @property
    def changes_function(self) -> bool:
        """Whether the two models compute something else in inference."""
        return self.effect is Effect.INFERENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A named share of (Keras total − PyTorch total); `count` is negative where PyTorch has more."""

    reason: str
    count: int
    layers: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The parameter ledger: `torch_total + sum(gaps) == keras_total`, or `unexplained` is not 0.

    torch_total counts parameters (shared ones once), torch_buffers elements of buffers (BN statistics and others);
    torch_statistics: how many of those are running means and variances; None: not told apart.
    """

    torch_total: int
    torch_trainable: int
    torch_buffers: int
    keras_total: int
    keras_trainable: int
    keras_non_trainable: int
    gaps: tuple[Gap, ...] = ()
    torch_statistics: int | None = None

    @property
    def unexplained(self) -> int:
        """Parameters that no gap names; 0 in a ledger that closes."""
        return self.keras_total - self.torch_total - sum(g.count for g in self.gaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One module call and its Keras twin. Errors are relative: max|got − want| / max|want|; None: not compared.

    error_*: the layer alone, fed PyTorch's own input (the largest over all probes). chain_*: where it stands in the
    whole model, both fed the same example. depth: position in PyTorch's order of execution.
    type, type_keras: the two classes, without their packages.
    """

    torch: str
    keras: str
    type: str
    shape: tuple[int | None, ...]
    params_torch: int
    params_keras: int
    error_f32: float | None = None
    error_f64: float | None = None
    chain_f32: float | None = None
    chain_f64: float | None = None
    depth: int = 0
    ok: bool = True
    note: str = ""
    type_keras: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """Agreement of the outputs along the whole chain in one dtype; `limit` is the relative error that passes."""

    max_abs: float
    max_rel: float
    limit: float | None = None

    @property
    def ok(self) -> bool:
        """False for NaN, infinity and beyond the limit; a dtype without a limit only reports rounding."""
        return math.isfinite(self.max_rel) and (self.limit is None or self.max_rel <= self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The written file and what a fresh process said of it. max_rel: reloaded outputs against PyTorch's, float32.

    size: bytes of the file, for the reader; None: not measured.
    """

    path: str
    sha256: str
    reloaded: bool
    lambda_layers: int
    custom_layers: int
    transposes: int
    max_rel: float | None = None
    error: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tested: name, whether it holds, how many subjects it looked at, and the words to show."""

    name: str
    ok: bool
    subjects: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a proof found. `verdict` follows from it: a failed check, an unexplained parameter, a number out of
    limit, a file that did not reload or a difference in inference gives `different`; any other named difference or
    gap gives `explained`."""

    title: str
    torch_name: str
    keras_name: str
    balance: Balance
    checks: tuple[Check, ...]
    differences: tuple[Difference, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    numerics: Mapping[str, Numerics] = field(default_factory=dict)
    artifact: Artifact | None = None
    timing: Mapping[str, float] = field(default_factory=dict)
    first_wrong: str = ""
    seed: int = 0
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """What follows from the findings."""
        sound = (
            bool(self.checks)
            and all(c.ok and c.subjects > 0 for c in self.checks)
            and self.balance.unexplained == 0
            and all(n.ok for n in self.numerics.values())
            and all(row.ok for row in self.layers)
            and (self.artifact is None or self.artifact.reloaded)
            and not any(d.changes_function and not d.allowed for d in self.differences)
        )
        if not sound:
            return Verdict.DIFFERENT
        return Verdict.EXPLAINED if self.differences or self.balance.gaps else Verdict.EQUAL

    @property
    def exit_status(self) -> int:
        """1 for `different`, else 0."""
        return 1 if self.verdict is Verdict.DIFFERENT else 0
