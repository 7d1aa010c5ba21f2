"""Spare the ONNX exporter its second trace of a program where what comes of it can be written down.

The exporter has every program decomposed: PyTorch runs it anew, twice, with symbolic sizes, which takes longer than all
the rest. Most programs hold nothing to decompose but operations in place, such as `relu_`, and a few that PyTorch
always writes in the same other words.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Container, Iterator
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import onnx_ir
import onnxscript
import torch
from torch._ops import OpOverload
from torch.onnx._internal.exporter import _registration

from translator.capture.rewrites import REWRITES, Rewrite, Values, function_of

OPSET = 23


def sparing(program: Any) -> Any:
    """The ExportedProgram, which answers `run_decompositions` with itself, rewritten in place, if that is all to do.

    The answer is PyTorch's own wherever an operation isn't known here, or writes to what is read under another name.
    """
    original = program.run_decompositions

    def run_decompositions(table: Any = None) -> Any:
        rewrites = None if table is None else _rewrites(program)
        if rewrites is None:
            return original(table)
        for rewrite in rewrites:
            rewrite()
        program.graph.eliminate_dead_code()
        program.graph_module.recompile()
        return program

    program.run_decompositions = run_decompositions
    return program


@contextlib.contextmanager
def one_registry() -> Iterator[None]:
    """While active, the exporter takes the table of its operations as it was built first: half a second each time."""
    with patch.object(_registration.ONNXRegistry, "from_torchlib", staticmethod(_registry)):
        yield


@contextlib.contextmanager
def values_computed_with() -> Iterator[None]:
    """While active, the exporter's functions may write `a - b` of what a node of ours with several outputs gives.

    Such a value is onnx_ir's own, which asks who does its arithmetic; the exporter's other values know it themselves.
    """
    before = onnx_ir.set_value_magic_handler(getattr(onnxscript, f"opset{OPSET}"))
    try:
        yield
    finally:
        onnx_ir.set_value_magic_handler(before)


_build_registry = _registration.ONNXRegistry.from_torchlib


@cache
def _registry(*, opset_version: int) -> Any:
    return _build_registry(opset_version)


@cache
def _preserved() -> Container[Any]:
    """The composite operations that PyTorch leaves whole if it is asked to."""
    return frozenset(torch.export.default_decompositions())


def _rewrites(program: Any) -> list[Rewrite] | None:
    """What gives a program of functions that the exporter keeps, or None if that isn't known of every operation."""
    values = Values(program.graph)
    rewrites: list[Rewrite] = []
    for node in program.graph.nodes:
        if node.op == "get_attr":
            return None
        if node.op != "call_function" or _is_pythons(node.target):
            continue
        if not isinstance(node.target, OpOverload):
            return None
        function = node.target
        if function._schema.is_mutable:
            found = function_of(node, values)
            if found is None:
                return None
            rewrites.append(partial(setattr, node, "target", found))
            function = found
        if not _is_kept(function):
            rewrite = REWRITES[function](node, values) if function in REWRITES else None
            if rewrite is None:
                return None
            rewrites.append(rewrite)
    return rewrites


def _is_pythons(target: Any) -> bool:
    """Python's own operations on sizes, and `getitem`."""
    return getattr(operator, getattr(target, "__name__", ""), None) is target


def _is_kept(target: OpOverload) -> bool:
    """Whether the exporter has a translation of it and asks PyTorch to leave it whole."""
    is_translated: bool = _registry(opset_version=OPSET).is_registered(target)
    return is_translated and (not target._can_decompose() or target in _preserved())
