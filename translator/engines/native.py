"""The native engine: trace, graph, layout, plan, Keras model, claims."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import nn

from translator.bindings import WeightBinding
from translator.capture.batches import unite
from translator.capture.modes import is_double
from translator.capture.trace import Captured, capture
from translator.claims import Claims, KerasValue, ModuleClaim, ParameterClaim, ValueClaim
from translator.emit.keras_model import Emitted, bound, emit, load_state
from translator.engines.result import EngineResult
from translator.engines.state import state_of
from translator.errors import UnsupportedError
from translator.graph.build import RESOLVED, build_graph
from translator.graph.fuse import fuse
from translator.layout.assign import assign
from translator.plan.build import build_plan
from translator.plan.calls import Plan
from translator.plan.fold import fold as fold_norms
from translator.plan.registry import load_rules
from translator.types import Layout

Progress = Callable[[str], None]


def translate(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    name: str = "",
    fold: bool = False,
    dynamic_hw: bool = False,
    on_stage: Progress = lambda stage: None,
) -> EngineResult:
    """Translate a module. dynamic_hw: images of any height and width, as far as PyTorch's trace allows it.

    A module all of whose floats are float64 gives a model that computes in float64, any other one in float32.
    Raises UnsupportedError where an op, or a setting of one, has no faithful Keras twin.
    """
    clock = _Clock(on_stage)
    clock.start("capture")
    captured = capture(module, example_inputs, example_kwargs=example_kwargs, name=name, dynamic_hw=dynamic_hw)
    floats = "float64" if is_double(module) else "float32"
    return _translated(captured, partial(state_of, module), clock, fold=fold, floats=floats)


def known_ops() -> frozenset[str]:
    """The ONNX ops that are translated as they are."""
    return frozenset(load_rules()) | RESOLVED


def translate_captured(captured: Captured, state: Mapping[str, np.ndarray]) -> EngineResult:
    """Translate what is captured already, such as an ONNX model; `state` has its weights by name.

    A model that takes float64 gives one that computes in float64.
    """
    double = any(v.dtype is not None and v.dtype.name == "DOUBLE" for v in captured.model.graph.inputs)
    clock = _Clock(lambda stage: None)
    return _translated(captured, lambda: state, clock, floats="float64" if double else "float32")


def _translated(
    captured: Captured,
    state: Callable[[], Mapping[str, np.ndarray]],
    clock: _Clock,
    *,
    fold: bool = False,
    floats: str = "float32",
) -> EngineResult:
    clock.start("plan")
    plan = plan_of(captured)
    if fold:
        plan = fold_norms(plan)
    clock.start("emit")
    emitted = emit(plan, state(), floats=floats)
    clock.stop()
    return EngineResult(
        model=emitted.model,
        claims=claims_of(plan, emitted),
        load_state=partial(_load, plan, emitted),
        plan=plan,
        bindings=tuple((emitted.paths[n], b) for n, b in bound(plan) if b.constant is None),
        timing=clock.timing,
        lost=plan.lost,
        notes=(*captured.notes, *plan.notes),
    )


def plan_of(captured: Captured) -> Plan:
    """The plan of a traced model.

    Where it needs two inputs to have one batch, as where both go through one network side by side, they have it.
    """
    try:
        return _plan(captured)
    except UnsupportedError as error:
        if error.reason != "data-dependent-shape" or not captured.batches:
            raise
    unite(captured.model, captured.batches)
    plan = _plan(captured)
    return replace(plan, notes=(*plan.notes, "inputs with as many rows as another in the example have its batch"))


def _plan(captured: Captured) -> Plan:
    graph = fuse(build_graph(captured.model, captured.tensors))
    return build_plan(
        graph, assign(graph),
        name=captured.name, tensors=captured.tensors, aliases=captured.aliases, put_out=captured.put_out,
    )  # fmt: skip


def claims_of(plan: Plan, emitted: Emitted) -> Claims:
    """What the plan says about the pair, for the judge to test."""
    claim = _Values(emitted)
    return Claims(
        inputs=tuple(claim(value, plan.values[value].layout) for _, value in plan.inputs),
        outputs=tuple(claim(v, at) for (_, v), at in zip(plan.outputs, plan.output_layouts, strict=True)),
        modules=tuple(
            ModuleClaim(
                path=m.path, call=m.call,
                inputs=tuple(claim(v, at) if v else None for v, at in zip(m.inputs, m.input_layouts, strict=True)),
                outputs=tuple(claim(v, at) if v else None for v, at in zip(m.outputs, m.output_layouts, strict=True)),
                covers=m.covers,
                arguments=m.arguments,
            )
            for m in plan.module_calls
        ),
        parameters=tuple(_parameters(plan, emitted)),
        aliases=plan.aliases,
        explained={"bn-folded": "asked for"} if any(b.fold for _, b in bound(plan)) else {},
    )  # fmt: skip


class _Values:
    """Claims of values, by the plan's value name and the layout in which PyTorch's tensor lies there."""

    def __init__(self, emitted: Emitted) -> None:
        self._emitted = emitted

    def __call__(self, value: str, layout: Layout) -> ValueClaim:
        base, _, tensor = value.partition(":")
        base, _, call = base.partition("@")
        keras_value = KerasValue(operation=self._emitted.paths[base], call=int(call or 0), tensor=int(tensor or 0))
        return ValueClaim(keras=keras_value, layout=layout)


def _parameters(plan: Plan, emitted: Emitted) -> list[ParameterClaim]:
    claims = []
    for layer, binding in bound(plan):
        counts = tuple(_count(p.region, plan.tensor_shapes[p.tensor]) for p in binding.pieces)
        claims.append(
            ParameterClaim(
                layer=emitted.paths[layer],
                variable=binding.variable,
                tensors=binding.tensors if binding.fold else tuple(p.tensor for p in binding.pieces),
                how=_how(binding),
                counts=() if binding.fold else counts,
            )
        )
    return claims


def _how(binding: WeightBinding) -> Literal["same", "sum", "constant", "computed"]:
    if binding.fold is not None:
        return "computed"
    if binding.constant is not None:
        return "constant"
    return "sum" if binding.join == "sum" else "same"


def _count(region: tuple[tuple[int, int], ...] | None, shape: tuple[int, ...]) -> int:
    if region is None:
        return int(np.prod(shape, dtype=np.int64))
    return int(np.prod([b - a for a, b in region], dtype=np.int64))


def _load(plan: Plan, emitted: Emitted, state: Mapping[str, np.ndarray]) -> None:
    load_state(plan, emitted, state)


class _Clock:
    """Seconds by stage, and a word to whoever shows progress."""

    def __init__(self, on_stage: Progress) -> None:
        self.timing: dict[str, float] = {}
        self._on_stage = on_stage
        self._stage, self._since = "", 0.0

    def start(self, stage: str) -> None:
        self.stop()
        self._stage, self._since = stage, time.perf_counter()
        self._on_stage(stage)

    def stop(self) -> None:
        if self._stage:
            self.timing[self._stage] = time.perf_counter() - self._since
        self._stage = ""
