"""The runs of a proof: which weights, which inputs, which dtype, and what is looked at in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from translator.verify.claim_index import ClaimIndex, Target
from translator.verify.compare import failure, lay_out
from translator.verify.findings import Book
from translator.verify.inputs import in_dtype
from translator.verify.keras_replay import Replay, Segment, to_keras
from translator.verify.precision import keras_float64, torch_float64
from translator.verify.probes import LeafProbes
from translator.verify.torch_record import Key, run, tensors_in
from translator.verify.watch import Watch

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The pair on the bench: what every run shares."""

    module: nn.Module
    index: ClaimIndex
    parts: Mapping[Key, Segment]
    on_call: Callable[[], None] | None = None

    def run(
        self,
        book: Book,
        inputs: Inputs,
        *,
        dtype: str,
        slot: str,
        label: str = "",
        chain: bool = True,
        made_up: np.random.Generator | None = None,
        probes: LeafProbes | None = None,
    ) -> list[torch.Tensor]:
        """Run both models once and note what is found; PyTorch's outputs.

        slot: the name under which it is noted. chain: also let Keras run by itself. made_up: put numbers of this
        generator in place of every leaf's outputs. probes: ask each leaf more.
        """
        args, kwargs = in_dtype(*inputs, dtype)
        given = self._given(args, kwargs, dtype)
        demands = self.index.demands()
        synced = Replay(self.index.graph, given, demands + (self._outside() if probes else Counter()))
        watch = Watch(
            index=self.index,
            book=book,
            dtype=dtype,
            slot=slot,
            label=label,
            synced=synced,
            chain=Replay(self.index.graph, given, demands, book.misshapen) if chain else None,
            made_up=made_up,
            at_leaf=probes,
            on_call=self.on_call,
        )
        del given
        return run(self.module, args, kwargs, watch)

    def _given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], dtype: str) -> dict[int, Any]:
        graph, found = self.index.graph, {}
        for tensor, target in zip(tensors_in((args, kwargs)), self.index.inputs, strict=False):
            if target is not None:
                declared = graph.dtypes[target.value]
                kind = dtype if "float" in declared else declared
                found[target.value] = to_keras(lay_out(tensor, target.layout, graph.shapes[target.value]), kind)
        return found

    def _outside(self) -> Counter[int]:
        return Counter(v for part in self.parts.values() for v in part.outside)


def input_problems(index: ClaimIndex, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Why the Keras model can't be fed what PyTorch is fed; empty where it can."""
    tensors = tensors_in((args, kwargs))
    problems = []
    if len(tensors) != len(index.inputs):
        problems.append(f"PyTorch takes {len(tensors)} tensors, {len(index.inputs)} are claimed")
    fed = set()
    for number, (tensor, target) in enumerate(zip(tensors, index.inputs, strict=False)):
        if target is None:
            continue
        fed.add(target.value)
        problem = _misfit(index, tensor, target)
        if problem:
            problems.append(f"input {number}: {problem}")
    if not set(index.graph.inputs) <= fed:
        problems.append("an input of the Keras model gets nothing")
    return problems


def _misfit(index: ClaimIndex, tensor: torch.Tensor, target: Target) -> str:
    declared = index.graph.shapes[target.value]
    try:
        shape = lay_out(tensor, target.layout, declared).shape
    except ValueError as error:
        return failure(str(error)).problem
    fits = len(shape) == len(declared) and all(d is None or d == n for d, n in zip(declared, shape, strict=True))
    return "" if fits else f"{shape} does not fit Keras' {declared}"


@contextmanager
def in_float64(bench: Bench) -> Iterator[None]:
    """Both models compute in float64 while the block runs."""
    with ExitStack() as stack:
        stack.enter_context(keras_float64(bench.index.graph.operations))
        stack.enter_context(torch_float64(bench.module))
        yield
