"""What an engine, or the aligner, claims about a pair of models. The judge tests claims; it never trusts them.

What must be covered comes from the nn.Module, never from here: a claim that is missing is a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from translator.types import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasValue:
    """A tensor of the Keras model: output `tensor` of call number `call` of an operation.

    operation: the operation's name; inside nested models the names from the outside in, joined by "/".
    An input of the model is output 0 of its InputLayer.
    """

    operation: str
    call: int = 0
    tensor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueClaim:
    """A Keras value equals a PyTorch value once laid out by `layout`."""

    keras: KerasValue
    layout: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleClaim:
    """Call number `call` of the PyTorch module `path` is computed between these Keras values.

    inputs and outputs: the module's tensor arguments and results, in order, with what is not known left out as None.
    covers: earlier module calls, in order, whose own results have no twin because the Keras side computes them in one
    with this call (a folded BatchNorm, an activation inside a Conv2D); `inputs` are then those of the first of them.
    arguments: which argument of the call each input is, by its number or keyword and the way on into what it holds
    ("0", "mask", "states.1"); () where the inputs are simply the tensors that the call gets.
    """

    path: str
    call: int
    inputs: tuple[ValueClaim | None, ...]
    outputs: tuple[ValueClaim | None, ...]
    covers: tuple[tuple[str, int], ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterClaim:
    """The Keras variable `variable` of `layer` holds these PyTorch tensors (all of each, or `count` elements).

    how: "same" (each element once, in some order), "sum" (element-wise sum of the tensors), "constant" (no PyTorch
    tensor: a number of the graph), "computed" (folded from the tensors).
    """

    layer: str
    variable: str
    tensors: tuple[str, ...]
    how: Literal["same", "sum", "constant", "computed"] = "same"
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Everything claimed about one pair.

    inputs and outputs: the model's own, in PyTorch's order. modules: one per module call that has a twin. aliases:
    state-dict names that are one tensor with another name (tied weights), name → the name that `parameters` uses.
    explained: gaps that the user asked for or that the frameworks force, reason → sentence.
    """

    inputs: tuple[ValueClaim, ...]
    outputs: tuple[ValueClaim, ...]
    modules: tuple[ModuleClaim, ...] = ()
    parameters: tuple[ParameterClaim, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    explained: Mapping[str, str] = field(default_factory=dict)
