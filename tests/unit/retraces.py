"""One capture by the exporter's own second trace and one that spares it, in words that can be compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import pytest
from torch import nn

from translator.capture import trace
from translator.capture.retrace import sparing
from translator.capture.trace import Captured, capture


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """The captured graphs, a line for every node. spared: whether the program was rewritten, not traced again."""

    pytorchs: list[str]
    ours: list[str]
    spared: bool


def both(module: nn.Module, *inputs: Any, **settings: Any) -> Both:
    """Capture `module` in both ways."""
    programs: list[tuple[Any, Any]] = []

    def told(program: Any) -> Any:
        answer = sparing(program).run_decompositions
        program.run_decompositions = lambda table: programs.append((program, answer(table))) or programs[-1][1]
        return program

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "sparing", lambda program: program)
        pytorchs = capture(module, inputs, **settings)
        patch.setattr(trace, "sparing", told)
        ours = capture(module, inputs, **settings)
    program, answered = programs[0]
    return Both(pytorchs=lines(pytorchs), ours=lines(ours), spared=answered is program)


def lines(captured: Captured) -> list[str]:
    """Every node with what it reads, its settings, the types and shapes of its results, and its origin.

    A value is named by the line that makes it, and lines are sorted: the order of what doesn't depend on each other is
    no difference, and no Identity is one.
    """
    names: dict[int, str] = {}

    def name(value: ir.Value | None) -> str:
        return "" if value is None else names.get(id(value), value.name or "")

    written = []
    for node in captured.model.graph:
        if node.op_type == "Identity":
            names[id(node.outputs[0])] = name(node.inputs[0])
            continue
        reads = [name(value) for value in node.inputs]
        settings = sorted(f"{a.name}={_setting(a)}" for a in node.attributes.values())
        exact = sorted((k, v) for k, v in node.meta.items() if k.startswith("exact"))
        results = [f"{v.dtype}{v.shape}" for v in node.outputs]
        origin = node.meta["origin"]
        source = origin.source if "runtime_asserts" not in origin.source else ""  # of a size that PyTorch added
        where = (origin.module, origin.call, origin.scopes, source)
        line = f"{node.domain}::{node.op_type}{reads} {settings} {exact} -> {results} {where}"
        written.append(line)
        digest = hashlib.sha256(line.encode()).hexdigest()[:12]
        names |= {id(value): f"#{digest}.{number}" for number, value in enumerate(node.outputs)}
    results = [f"{name(v)} {v.dtype}{v.shape}" for v in captured.model.graph.outputs]
    return [*sorted(written), f"outputs {results}", f"notes {captured.notes}", f"batches {captured.batches}"]


def _setting(attribute: Any) -> str:
    tensor = attribute.value
    return str(tensor.numpy().tolist()) if isinstance(tensor, ir.TensorProtocol) else str(tensor)
