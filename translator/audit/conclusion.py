"""From what the judge found and what the aligner can name to one report: a fault is said once, by its name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import keras
from torch import nn

from translator.audit.align import Alignment
from translator.audit.explain import explain, grouped
from translator.audit.gaps import balance_of
from translator.audit.unmatched import layer_name
from translator.audit.weigh import Relation, Weighed, weight_differences
from translator.verdict import Check, Difference, Effect, LayerRow, Report

_NAMED = 20
"""Layers of which a difference says what is wrong."""
_FAULTS = ("numbers", "numbers along the chain", "uncovered", "ledger")


def conclude(
    found: Report,
    alignment: Alignment,
    module: nn.Module,
    model: keras.Model,
    *,
    weighed: Sequence[Weighed],
    related: Relation,
    moved: bool,
    initialisers: bool,
    beyond: Effect = Effect.INFERENCE,
) -> Report:
    """The judge's report with every difference by its name, and the balance with every gap.

    beyond: what it means that PyTorch goes on where the Keras model ends.
    """
    balance = balance_of(alignment, module, model)
    named = explain(alignment, balance, initialisers=initialisers, weights_moved=moved, beyond=beyond)
    named += grouped(weight_differences(weighed))
    named += _unexplained(found, named, alignment)
    absorbed = {a.path for u in alignment.left.units for a in u.absorbed}
    merged = [d for d in found.differences if d.kind == "merged" and absorbed.intersection(d.layers)]
    return replace(
        found,
        balance=balance,
        checks=tuple(_checks(found, balance.unexplained, weighed, alignment, named)),
        differences=tuple(_in_order([*named, *merged], alignment)),
        notes=tuple(dict.fromkeys([*_notes(related, moved, alignment), *found.notes])),
        extra={**found.extra, "coverage": alignment.coverage},
    )


def _unexplained(found: Report, named: Sequence[Difference], alignment: Alignment) -> list[Difference]:
    """What the judge found wrong in layers of which no named difference changes the function."""
    explained = {layer for d in named if d.changes_function for layer in d.layers}
    if explained:
        explained.add("(model)")  # what comes out differs because of what is named
    explained |= _fed_otherwise(found, alignment, explained)
    explained |= _around_named(found, alignment, named, explained)
    tied = {layer for d in named if d.kind == "tied-weights" for layer in d.layers}
    rest = []
    wrong = {row.torch: row.note for row in found.layers if not row.ok}
    for difference in found.differences:
        if difference.kind not in _FAULTS:
            continue
        layers = tuple(layer for layer in difference.layers if layer not in explained)
        if difference.kind == "numbers along the chain" and (explained or wrong):
            continue  # what is wrong in one layer goes on through all that follow
        if difference.kind in ("uncovered", "ledger") and any(d.changes_function for d in named):
            layers = tuple(layer for layer in layers if layer in wrong)
        if difference.kind == "ledger":
            layers = tuple(layer for layer in layers if layer not in tied)
        if layers and len(layers) < len(difference.layers):
            words = [f"{layer}: {wrong[layer]}" for layer in layers if layer in wrong]
            rest.append(replace(difference, layers=layers, detail="; ".join(words[:_NAMED])))
        elif layers:
            rest.append(difference)
    return rest


def _around_named(
    found: Report, alignment: Alignment, named: Sequence[Difference], explained: Collection[str]
) -> set[str]:
    """Modules that aren't layers themselves, and are wrong only because of a layer that a named difference speaks of:
    its parts (the activation of a norm that acts), and what puts out what the head does."""
    units = {layer_name(u) for u in alignment.left.units}
    heads = {layer for d in named if d.kind == "head" for layer in d.layers}
    found_around = set()
    for row in found.layers:
        if row.ok or row.torch in units:
            continue
        part = any(unit in explained for unit in _modules_around(row.torch) if unit in units)
        if part or row.keras in heads:
            found_around.add(row.torch)
    return found_around


def _modules_around(path: str) -> Iterator[str]:
    """The modules around one."""
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _fed_otherwise(found: Report, alignment: Alignment, explained: Collection[str]) -> set[str]:
    """Layers, and modules that begin with them, that are wrong only in what they read: right behind a function that a
    named difference speaks of, or that only one side has."""
    suspects = {row.torch for row in found.layers if not row.ok and row.note.startswith("its input")}
    fed: set[str] = set()
    paired = {p.torch.index for p in alignment.pairs}, {p.keras.index for p in alignment.pairs}
    rows = alignment.left.wiring(), alignment.right.wiring()
    units = alignment.left.units, alignment.right.units
    for pair in alignment.pairs if suspects else ():
        layer = layer_name(pair.torch)
        above = {layer_name(units[0][s]) for s in rows[0][pair.torch.index] if s >= 0}
        around = [m for m in _modules_around(layer) if not any(name.startswith(f"{m}.") for name in above)]
        reading = suspects.intersection((layer, *around))
        if not reading:
            continue
        for side, unit in enumerate((pair.torch, pair.keras)):
            sources = [s for s in rows[side][unit.index] if s >= 0]
            odd = any(s not in paired[side] for s in sources)
            if odd or any(units[side][s].module is None and layer_name(units[side][s]) in explained for s in sources):
                fed |= reading
    return fed if explained else set()


def _in_order(differences: Sequence[Difference], alignment: Alignment) -> list[Difference]:
    """By effect, then by PyTorch's order of the first layer."""
    place = {layer_name(u): u.index for u in reversed(alignment.left.units)}
    effects = list(Effect)
    return sorted(
        differences,
        key=lambda d: (effects.index(d.effect), place.get(d.layers[0] if d.layers else "", len(place))),
    )


def _checks(
    found: Report, unexplained: int, weighed: Sequence[Weighed], alignment: Alignment, named: Sequence[Difference]
) -> list[Check]:
    pairs = len(alignment.pairs)
    alone = len(alignment.torch_only) + len(alignment.keras_only)
    checks = [
        Check(
            name="alignment",
            ok=True,
            subjects=max(pairs, 1),
            detail=f"{pairs:,} pairs, {alone:,} layers without a partner, {alignment.coverage:.0%} of the parameters",
        ),
        Check(
            name="balance",
            ok=unexplained == 0,
            subjects=1,
            detail="" if unexplained == 0 else f"{unexplained:+,} parameters are unexplained",
        ),
    ]
    if weighed:
        wrong = [w for w in weighed if w.wrong]
        detail = f"{len(wrong):,} of {len(weighed):,} variables hold other numbers" if wrong else ""
        checks.append(Check(name="weights", ok=not wrong, subjects=len(weighed), detail=detail))
    tied = any(d.kind == "tied-weights" for d in named)
    folded = any(d.kind == "bn-folded" for d in named)
    for check in found.checks:
        if folded and check.name.startswith("BatchNorms kept"):
            continue  # it is a difference with a name, and was there before anybody could ask for it
        if check.name == "ledger" and (tied or not check.ok):
            # The balance above is the ledger of a pair that nobody translated: its gaps have names.
            names = [d for d in found.differences if d.kind == "ledger"]
            left = [d for d in named if d.kind == "ledger"]
            if names and not left:
                continue
        checks.append(check)
    return checks


def _notes(related: Relation, moved: bool, alignment: Alignment) -> list[str]:
    notes = []
    if moved and related is Relation.UNRELATED:
        notes.append("the weights have nothing to do with each other: the architectures were judged, with PyTorch's")
    elif moved:
        notes.append("the architectures were judged, with PyTorch's weights in both models")
    if alignment.coverage < 1:
        notes.append(f"{alignment.coverage:.1%} of PyTorch's parameters are in layers that have a partner")
    return notes


def no_match(alignment: Alignment, module: nn.Module, model: keras.Model, *, seed: int) -> Report:
    """The report on two models that have nothing to do with each other."""
    balance = balance_of(alignment, module, model)
    percent = f"{alignment.coverage:.0%}"
    words = f"these do not match: the best alignment covers {percent} of PyTorch's parameters"
    rows = [
        LayerRow(
            torch=layer_name(p.torch),
            keras=p.keras.path,
            type=p.torch.text,
            shape=tuple(alignment.left.shapes[p.torch.outputs[0]]),
            params_torch=p.torch.elements,
            params_keras=p.keras.elements,
            depth=p.torch.index,
        )
        for p in alignment.pairs
        if p.torch.signature == p.keras.signature and p.torch.weights
    ]
    difference = Difference(
        kind="no-match",
        layers=(),
        torch=f"{len(alignment.left.units):,} layers, {balance.torch_total:,} parameters",
        keras=f"{len(alignment.right.units):,} layers, {balance.keras_total:,} parameters",
        effect=Effect.INFERENCE,
        detail=words,
    )
    name = type(module).__name__
    return Report(
        title=f"{name} → {model.name}",
        torch_name=name,
        keras_name=model.name,
        balance=balance,
        checks=(Check(name="alignment", ok=False, subjects=max(len(alignment.pairs), 1), detail=words),),
        differences=(difference,),
        layers=tuple(rows),
        first_wrong="(model)",
        seed=seed,
        notes=(words,),
        extra={"coverage": alignment.coverage},
    )
