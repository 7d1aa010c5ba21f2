"""One PyTorch leaf module against the Keras operations that stand for it: every setting that differs.

Numbers alone can't tell a momentum of 0.99 from 0.9, or a dropout rate, or a frozen layer; and where numbers differ,
this says why. It reads settings only: nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from translator.verdict import Difference, Effect
from translator.verify.compare_facts import Finding, Findings, compare, kind_text
from translator.verify.facts import (
    Activation,
    Conv,
    Dense,
    Dropout,
    Facts,
    Ints,
    Padding,
    Pool,
    Recurrent,
    Resize,
    padded,
)
from translator.verify.facts_keras import inner_activation, keras_facts
from translator.verify.facts_torch import torch_class, torch_facts
from translator.verify.initialisers import initialiser_findings
from translator.verify.keras_kinds import keras_class

if TYPE_CHECKING:
    import keras
    import torch

Described = tuple["keras.Operation", Facts]

_FUNCTIONS = (Activation, Pool, Resize)
"""Kinds that are sometimes put together from several functions: then no single one of them can be compared."""

_PICKING = ("GetItem", "Take")
"""Operations that pick elements. Around a convolution they are part of its stride or padding, which then can't be read
off the convolution alone."""

_ROUNDED = 2.0**-23
"""Relative: a float32 and its neighbour."""

_INTERCHANGEABLE: tuple[tuple[type, ...], ...] = ((Conv, Dense),)


def compare_configuration(
    path: str,
    module: torch.nn.Module,
    operations: Sequence[keras.Operation],
    *,
    input_shape: Sequence[int | None] | None = None,
    initialisers: bool = False,
    nonnegative: bool = False,
) -> list[Difference]:
    """Differences in configuration between a leaf module and the Keras operations that stand for it, in order.

    path: the module's dotted name. module: as the user gave it (its dtype and requires_grad are compared).
    operations: for instance `[ZeroPadding2D, Conv2D]`, or the `ops.pad` and the MaxPooling2D of a padded pooling; none
    where Keras has nothing. input_shape: of the module's first tensor argument in PyTorch's order (N, C, H, W): "same"
    means different numbers at different sizes. initialisers: compare what fresh weights are drawn from, too.
    nonnegative: the input is never below zero. Where the operations are not of a kind that can be described (a layer
    put together from several functions), nothing is said: there the numbers decide.
    """
    want = torch_facts(module, input_shape)
    findings: list[Finding] = []
    described = list(_described(operations, want))
    if want is not None:
        findings += _against(want, operations, described, nonnegative=nonnegative)
    partners = [op for op, facts in described if want is not None and _comparable(want, facts)]
    if len(partners) == 1:
        findings += weight_findings(module, partners[0], initialisers=initialisers)
    return [as_difference(finding, (path,)) for finding in findings]


def epsilon_folded(difference: Difference) -> Difference:
    """What another epsilon means where the moving variance makes up for it."""
    why = "the moving variance makes up for it in inference"
    return replace(difference, effect=Effect.TRAINING, detail="; ".join(filter(None, (difference.detail, why))))


def variance_makes_up(module: Any, operations: Sequence[keras.Operation]) -> bool:
    """Whether Keras' moving variance and epsilon are together what PyTorch's are, as float32 rounds the variance."""
    from translator.verify.keras_replay import to_numpy

    layer: Any = next((op for op in operations if keras_class(op) == "BatchNormalization"), None)
    if layer is None or getattr(module, "running_var", None) is None:
        return False
    ours = module.running_var.detach().double().cpu().numpy()
    theirs = to_numpy(layer.moving_variance.value).astype(np.float64)
    want, got = ours + float(module.eps), theirs + float(layer.epsilon)
    return want.shape == got.shape and bool((np.abs(want - got) <= _ROUNDED * np.maximum(ours, theirs)).all())


def weight_findings(module: torch.nn.Module, operation: keras.Operation, *, initialisers: bool = False) -> Findings:
    """What differs in the weights' own settings: trainable, data type, regularisers, and initialisers on request."""
    yield from _trainable(module, operation)
    yield from _dtype(module, operation)
    yield from _regularisers(operation)
    if initialisers:
        yield from initialiser_findings(module, operation)


def as_difference(finding: Finding, layers: tuple[str, ...]) -> Difference:
    """A finding, tied to its layers."""
    return Difference(
        kind=finding.kind, layers=layers, torch=finding.torch, keras=finding.keras, effect=finding.effect,
        fix=finding.fix, detail=finding.detail,
    )  # fmt: skip


def _against(
    want: Facts, operations: Sequence[keras.Operation], described: list[Described], *, nonnegative: bool
) -> Findings:
    partners = [(op, facts) for op, facts in described if _comparable(want, facts)]
    if isinstance(want, _FUNCTIONS) and partners and len(partners) < _without_padding(operations):
        return
    if isinstance(want, Conv | Pool | Padding) and any(map(_elsewhere, operations)):
        return
    if isinstance(want, Conv | Pool) and want.windows is not None and _turned(operations):
        want = replace(want, windows=replace(want.windows, padding=None))
    if isinstance(want, Dropout) and not partners:
        yield from _lost_dropout(want)
    elif len(partners) == 1:
        op, facts = partners[0]
        if isinstance(want, Conv | Dense) and isinstance(facts, Conv | Dense) and _adds(operations):
            facts = replace(facts, bias=want.bias)
        yield from compare(want, facts, layer=keras_class(op), nonnegative=nonnegative)
    elif not partners and isinstance(want, Activation):
        yield from _inner(want, operations)
    elif not partners and len(described) == len(operations) == 1 and not isinstance(described[0][1], Padding):
        keras = kind_text(described[0][1])
        yield Finding(kind="kind", torch=kind_text(want), keras=keras, effect=Effect.INFERENCE)
    elif isinstance(want, Recurrent) and partners:
        yield from _stacked(want, partners)


def _elsewhere(op: keras.Operation) -> bool:
    """Whether an operation picks or pads elements so that a window's own setting no longer tells which it reads."""
    return keras_class(op) in _PICKING or (keras_class(op) == "Pad" and keras_facts(op) is None)


def _turned(operations: Sequence[keras.Operation]) -> bool:
    """Whether axes change places behind a padding: which of them it padded, and no more, is left to the numbers.

    Axes of size 1 change places by a reshape, between the padding and its window; one behind the window moves nothing.
    """
    facts = [keras_facts(op) for op in operations]
    pads, windows = ([k for k, f in enumerate(facts) if isinstance(f, kinds)] for kinds in (Padding, Conv | Pool))
    turns = [k for k, op in enumerate(operations) if keras_class(op) in ("Transpose", "Permute")]
    turns += [k for k, op in enumerate(operations) if keras_class(op) == "Reshape" and windows and k < windows[-1]]
    return bool(pads and turns) and pads[0] < max(turns)


def _adds(operations: Sequence[keras.Operation]) -> bool:
    """Whether a function adds something to what a layer made: perhaps its bias, which the numbers tell."""
    return any(keras_class(op) == "Add" and not getattr(op, "weights", ()) for op in operations)


def _without_padding(operations: Sequence[keras.Operation]) -> int:
    return sum(not isinstance(keras_facts(op), Padding) for op in operations)


def _comparable(want: Facts, got: Facts) -> bool:
    return type(want) is type(got) or any({type(want), type(got)} <= set(pair) for pair in _INTERCHANGEABLE)


def _lost_dropout(want: Dropout) -> Findings:
    if want.rate:
        fix = f"Dropout({want.rate:g})" if want.kind == "element" else f"a dropout of kind {want.kind}, {want.rate:g}"
        yield Finding(kind="dropout", torch=f"{want.rate:g}", keras="none", effect=Effect.TRAINING, fix=fix)


def _inner(want: Activation, operations: Sequence[keras.Operation]) -> Findings:
    """The activation of a weighted layer, where it stands for the module."""
    found = [inner for op in operations if (inner := inner_activation(op)) is not None]
    if len(found) == 1:
        yield from compare(want, found[0], layer=keras_class(operations[-1]))


def _stacked(want: Recurrent, partners: list[Described]) -> Findings:
    if want.layers != len(partners):
        layers = (str(want.layers), str(len(partners)))
        yield Finding(kind="recurrent-layers", torch=layers[0], keras=layers[1], effect=Effect.INFERENCE)
    said = set()
    for number, (op, facts) in enumerate(partners):
        # PyTorch drops between the layers of a stack, never after the last.
        rate = want.dropout if number < len(partners) - 1 else 0.0
        for finding in compare(replace(want, layers=1, dropout=rate), facts, layer=keras_class(op)):
            if finding not in said:
                said.add(finding)
                yield finding


def _described(operations: Sequence[keras.Operation], want: Facts | None) -> Iterator[Described]:
    """Each operation that can be described; paddings join the window that follows them, which then starts earlier."""
    sizes = _sizes(want)
    pads: list[Padding] = []
    for op in operations:
        facts = keras_facts(op, _grown(sizes, pads) if pads or sizes else None)
        if isinstance(facts, Padding):
            pads.append(facts)
        elif isinstance(facts, Conv | Pool) and pads:
            yield op, padded(facts, pads, sizes)
            pads = []
        elif facts is not None:
            yield op, facts
    if pads and len(pads) == len(operations):
        yield operations[-1], _together(pads)
    else:
        yield from zip(operations, pads, strict=False)


def _together(pads: Sequence[Padding]) -> Padding:
    """Paddings one after the other as one: cropping in front and padding behind, by any two layers."""
    total = pads[0]
    for padding in pads[1:]:
        both = zip(total.pads, padding.pads, strict=True)
        fill = padding.fill if any(n > 0 for pair in padding.pads for n in pair) else total.fill
        total = Padding(pads=tuple((a + c, b + d) for (a, b), (c, d) in both), fill=fill)
    return total


def _sizes(facts: Facts | None) -> Ints | None:
    windows = facts.windows if isinstance(facts, Conv | Pool) else None
    return windows.sizes if windows is not None else None


def _grown(sizes: Ints | None, pads: Sequence[Padding]) -> Ints | None:
    if sizes is None:
        return None
    for padding in pads:
        sizes = tuple(n + sum(pair) for n, pair in zip(sizes, padding.pads, strict=False))
    return sizes


def _trainable(module: Any, op: Any) -> Findings:
    own = [p.requires_grad for p in module.parameters()]
    weights = getattr(op, "weights", ())
    if not own or not weights:
        return
    torch, keras = any(own), bool(op.trainable_weights)
    if torch != keras:
        words = {True: "trainable", False: "frozen"}
        fix = f"layer.trainable = {torch}"
        yield Finding(kind="frozen", torch=words[torch], keras=words[keras], effect=Effect.TRAINING, fix=fix)


_BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}


def _dtype(module: Any, op: Any) -> Findings:
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    if not tensors or not getattr(op, "weights", ()):
        return
    torch, keras = str(tensors[0].dtype).removeprefix("torch."), str(op.compute_dtype)
    if torch != keras:
        fewer = _BITS.get(keras, 0) < _BITS.get(torch, 0)
        effect = Effect.INFERENCE if fewer else Effect.NOTHING
        detail = "rounding only" if fewer else "every number of the one is a number of the other"
        fix = f'dtype="{torch}"'
        yield Finding(kind="data-type", torch=torch, keras=keras, effect=effect, fix=fix, detail=detail)


def _regularisers(op: Any) -> Findings:
    for attribute, value in sorted(vars(op).items()):
        kind = {"regularizer": "regulariser", "constraint": "constraint"}.get(attribute.rsplit("_", 1)[-1])
        if kind and value is not None:
            name = type(value).__name__
            fix = f"{attribute}=None (weight decay belongs to PyTorch's optimizer)" if kind == "regulariser" else ""
            keras = f"{attribute.lstrip('_')}: {name}"
            yield Finding(kind=kind, torch="none", keras=keras, effect=Effect.TRAINING, fix=fix)


def leaf_text(module: torch.nn.Module) -> str:
    """A short name of what the module is, for messages."""
    facts = torch_facts(module)
    return kind_text(facts) if facts is not None else torch_class(module)
