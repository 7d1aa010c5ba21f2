"""What an engine gives: a Keras model, its claims, and a way to load other weights. The judge takes it from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from translator.bindings import WeightBinding
from translator.claims import Claims

if TYPE_CHECKING:
    import keras

    from translator.plan.calls import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult:
    """model: the Keras model, weights set. load_state: sets its weights from PyTorch tensors by name, where possible.

    plan, bindings (by the layer's path): the native engine's; None and empty for another engine.
    timing: seconds by stage. notes: for the report.
    """

    model: keras.Model
    claims: Claims
    load_state: Callable[[Mapping[str, np.ndarray]], None] | None
    plan: Plan | None = None
    bindings: tuple[tuple[str, WeightBinding], ...] = ()
    transposes: int = 0
    timing: Mapping[str, float] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
