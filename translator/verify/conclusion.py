"""From what a proof found to its report: rows, checks, differences, and the first layer that is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import keras
from torch import nn

from translator.verdict import Check, Difference, Effect, LayerRow, Numerics, Report
from translator.verify import ledger as books
from translator.verify.claim_index import ROOT
from translator.verify.findings import Entry, Worst
from translator.verify.structure import structure_check
from translator.verify.torch_record import Key

if TYPE_CHECKING:
    from translator.verify.proof import Proof

_MODEL = "(model)"
_FLOAT64 = ("float64", "own weights")
_NAMED = 20


def report_of(proof: Proof, ledger: books.Ledger, *, seconds: float) -> Report:
    """The report. Its verdict follows from it; nothing is decided here."""
    totals = books.balance(ledger)
    wrong, off = _wrong(proof), _off(proof)
    differences = list(_differences(proof, ledger, wrong, off))
    return Report(
        title=f"{type(proof.module).__name__} → {proof.subject.keras_model.name}",
        torch_name=type(proof.module).__name__,
        keras_name=proof.subject.keras_model.name,
        balance=totals,
        checks=tuple(_checks(proof, ledger, totals, wrong, off, differences)),
        differences=tuple(differences),
        layers=tuple(_rows(proof, ledger, wrong)),
        numerics=_numerics(proof),
        timing={"verify": seconds},
        first_wrong=_first_wrong(proof, ledger, wrong, off),
        seed=proof.options.seed,
        lost=tuple(f"{key[0]}: {what}" for key, what in proof.book.lost.items()),
        notes=tuple(dict.fromkeys([*proof.notes, *proof.book.notes])),
        versions=_versions(),
    )


def _wrong(proof: Proof) -> dict[Key, str]:
    """Calls that are wrong by themselves, in order, and why."""
    found = {e.key: e.wrong(proof.limits) for e in proof.book.in_order()}
    return {key: why for key, why in found.items() if why}


def _off(proof: Proof) -> dict[Key, str]:
    """Calls whose result is wrong along the chain, in order, and why."""
    found = {e.key: e.off(proof.limits) for e in proof.book.in_order()}
    return {key: why for key, why in found.items() if why}


def _first_wrong(proof: Proof, ledger: books.Ledger, wrong: Mapping[Key, str], off: Mapping[Key, str]) -> str:
    if wrong or off:
        return _name(next(iter(wrong or off)))
    if proof.uncovered:
        return proof.uncovered[0].layer
    order = [e.key[0] for e in proof.book.in_order()]
    return min(ledger.wrong, key=lambda n: order.index(n) if n in order else len(order), default="")


def _checks(
    proof: Proof,
    ledger: books.Ledger,
    totals: object,
    wrong: Mapping[Key, str],
    off: Mapping[Key, str],
    differences: Sequence[Difference],
) -> Iterable[Check]:
    counted, slots = proof.book.compared, proof.limits.by_dtype
    yield structure_check(proof.index, proof.book, proof.uncovered)
    yield books.check(ledger, books.balance(ledger))
    deciding = "float64" if "float64" in proof.options.dtypes else "float32"
    yield _number_check(f"each layer alone, {deciding}", counted.get(f"alone {deciding}", 0), wrong)
    yield _number_check(f"along the chain, {deciding}", counted.get(f"chain {deciding}", 0), off)
    for slot in slots:
        if slot != deciding and counted.get(f"chain {slot}"):
            name = "own weights, float64" if slot == "own weights" else f"{slot}, rounding only"
            faults = {e.key: why for e in proof.book.in_order() if (why := _fault_in(e, slot, proof))}
            yield _number_check(name, counted[f"chain {slot}"], faults)
    settings = [d for d in proof.configuration if d.changes_function]
    folded = _folded_norms(proof)
    if folded:
        words = "" if all(folded.values()) else f"{len(folded)} BatchNorms are folded away, and nobody asked for it"
        yield Check(name="BatchNorms kept, or folded on request", ok=not words, subjects=len(folded), detail=words)
    if proof.configured:
        words = "; ".join(f"{d.layers[0]}: {d.kind} {d.torch} | {d.keras}" for d in settings[:3])
        yield Check(name="configuration", ok=not settings, subjects=proof.configured, detail=words)


def _fault_in(entry: Entry, slot: str, proof: Proof) -> str:
    alone, chain = entry.alone.get(slot), entry.chain.get(slot)
    return (alone.reason(proof.limits.alone(slot, entry.key)) if alone else "") or (
        chain.reason(proof.limits.chain(slot)) if chain else ""
    )


def _number_check(name: str, subjects: int, faults: Mapping[Key, str]) -> Check:
    words = [f"{_name(key)}: {why}" for key, why in list(faults.items())[:3]]
    more = [f"and {len(faults) - 3} more"] if len(faults) > 3 else []
    return Check(name=name, ok=not faults and subjects > 0, subjects=subjects, detail="; ".join([*words, *more]))


def _differences(
    proof: Proof, ledger: books.Ledger, wrong: Mapping[Key, str], off: Mapping[Key, str]
) -> Iterable[Difference]:
    if wrong or off:
        kind, faults = ("numbers", wrong) if wrong else ("numbers along the chain", off)
        yield Difference(
            kind=kind,
            layers=tuple(dict.fromkeys(_name(key) for key in faults)),
            torch="its own result",
            keras="another result",
            effect=Effect.INFERENCE,
            detail="; ".join(f"{_name(k)}: {why}" for k, why in list(faults.items())[:_NAMED]),
        )
    for uncovered in proof.uncovered[:_NAMED]:
        yield _failed("uncovered", uncovered.layer, uncovered.why)
    for layer, why in list(ledger.wrong.items())[:_NAMED]:
        yield _failed("ledger", layer, why)
    settings = {(d.kind, d.layers) for d in proof.configuration}
    yield from _grouped(
        [
            *proof.configuration,
            *(d for d in ledger.differences if (d.kind, d.layers) not in settings),
            *(_lost(k[0], what) for k, what in proof.book.lost.items() if ("dropout", (k[0],)) not in settings),
            *_misshapen(proof),
            *_merged(proof),
            *_unused(ledger),
        ]
    )


def _failed(kind: str, layer: str, why: str) -> Difference:
    return Difference(kind=kind, layers=(layer,), torch="", keras="", effect=Effect.INFERENCE, detail=why)


def _lost(layer: str, what: str) -> Difference:
    return Difference(
        kind="dropout",
        layers=(layer,),
        torch=what,
        keras="none",
        effect=Effect.TRAINING,
        detail="lost for training: it does nothing in inference, and has no twin",
    )


def _merged(proof: Proof) -> Iterable[Difference]:
    allowed = "bn-folded" in proof.subject.claims.explained
    for key, into in proof.index.covered.items():
        if into in _folded_norms(proof):
            yield Difference(
                kind="bn-folded",
                layers=(into[0],),
                torch="a BatchNorm of its own",
                keras="folded into the layer before it",
                effect=Effect.TRAINING,
                fix="keep the BatchNormalization: its statistics no longer train",
                allowed=allowed,
            )
            continue
        yield Difference(
            kind="merged",
            layers=(key[0],),
            torch="a layer of its own",
            keras=f"computed together with {into[0]}",
            effect=Effect.NOTHING,
        )


def _misshapen(proof: Proof) -> Iterable[Difference]:
    """The first step whose output hasn't the shape that Keras says; those after it follow."""
    for path, (inferred, own) in list(proof.book.misshapen.items())[:1]:
        more = len(proof.book.misshapen) - 1
        if len(inferred) == len(own):
            own = tuple(None if said is None else size for said, size in zip(inferred, own, strict=True))
        yield Difference(
            kind="inferred shape",
            layers=(path,),
            torch=str(own),
            keras=str(inferred),
            effect=Effect.NOTHING,
            detail="the numbers have another shape than Keras says" + (f"; so have {more} more" if more else ""),
        )


def _folded_norms(proof: Proof) -> dict[Key, bool]:
    """Calls of BatchNorm modules that Keras computes in one with the layer before, and whether that was asked for."""
    norms = {n for n, m in proof.module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    asked = "bn-folded" in proof.subject.claims.explained
    return {into: asked for into in proof.index.covered.values() if into[0] in norms}


def _unused(ledger: books.Ledger) -> Iterable[Difference]:
    for layer in dict.fromkeys(h.layer for h in ledger.unused):
        yield Difference(
            kind="unused in inference",
            layers=(layer,),
            torch="parameters",
            keras="none",
            effect=Effect.TRAINING,
            detail="PyTorch's result in evaluation mode does not depend on them",
        )


def _grouped(differences: Iterable[Difference]) -> Iterable[Difference]:
    """The same difference in several layers, once, with all of them."""
    groups: dict[Difference, list[str]] = {}
    for d in differences:
        groups.setdefault(replace(d, layers=()), []).extend(d.layers)
    for shared, layers in groups.items():
        yield replace(shared, layers=tuple(dict.fromkeys(layers)))


def _rows(proof: Proof, ledger: books.Ledger, wrong: Mapping[Key, str]) -> Iterable[LayerRow]:
    """One row per module call that has a twin; the whole model's only where it computes something itself."""
    modules = dict(proof.module.named_modules())
    operations = {s.path: s.operation for s in proof.graph.steps}
    in_keras = _keras_parameters(ledger)
    counted: set[int] = set()
    for entry in proof.book.in_order():
        if entry.depth < 0 or (entry.key == ROOT and not entry.alone):
            continue
        module = modules[entry.key[0]]
        own = [p for p in module.parameters(recurse=entry.leaf) if id(p) not in counted]
        counted.update(id(p) for p in own)
        operation = operations.get(entry.keras) or proof.graph.entered.get(entry.keras)
        notes = [wrong[entry.key]] if entry.key in wrong else []
        yield LayerRow(
            torch=_name(entry.key),
            keras=entry.keras,
            type=entry.type,
            type_keras=type(operation).__name__ if operation is not None else "",
            shape=_open_shape(proof, entry),
            params_torch=sum(p.numel() for p in own),
            params_keras=in_keras.pop(entry.key[0], 0),
            error_f32=_error(entry.alone, ("float32",)),
            error_f64=_error(entry.alone, _FLOAT64),
            chain_f32=_error(entry.chain, ("float32",)),
            chain_f64=_error(entry.chain, _FLOAT64),
            depth=entry.depth,
            ok=entry.key not in wrong,
            note="; ".join([*notes, *dict.fromkeys(entry.notes)]),
        )


def _open_shape(proof: Proof, entry: Entry) -> tuple[int | None, ...]:
    """The shape of the first output with None where Keras leaves the first axis open."""
    target = next(iter(proof.index.twins[entry.key].outputs), None)
    shape: list[int | None] = list(entry.shape)
    if target is not None and target.layout.axes and target.layout.view is None and shape:
        declared = proof.graph.shapes[target.value]
        if declared and declared[0] is None:
            shape[target.layout.axes[0]] = None
    elif shape and target is not None and proof.graph.shapes[target.value][:1] == (None,):
        shape[0] = None
    return tuple(shape)


def _keras_parameters(ledger: books.Ledger) -> dict[str, int]:
    """Elements of Keras variables by the PyTorch module whose tensors they hold."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    for booking in ledger.bookings:
        if booking.tensors and id(booking.variable) not in seen:
            seen.add(id(booking.variable))
            layer = booking.tensors[0].layer
            size = 1
            for n in booking.variable.shape:
                size *= n
            found[layer] = found.get(layer, 0) + size
    return found


def _error(found: Mapping[str, Worst], slots: Iterable[str]) -> float | None:
    errors = [found[s].error for s in slots if s in found]
    return max(errors, default=None)


def _numerics(proof: Proof) -> dict[str, Numerics]:
    entry = proof.book.entries.get(ROOT)
    found: dict[str, Numerics] = {}
    for name, slots in (("float32", ("float32",)), ("float64", _FLOAT64)):
        worst = [entry.chain[s] for s in slots if s in entry.chain] if entry is not None else []
        if worst:
            found[name] = Numerics(
                max_abs=max(w.max_abs for w in worst),
                max_rel=max(w.error for w in worst),
                limit=proof.limits.chain(name),
            )
    return found


def _name(key: Key) -> str:
    return key[0] or _MODEL


def _versions() -> dict[str, str]:
    found = {"keras backend": keras.config.backend()}
    for package in ("torch", "keras", keras.config.backend()):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
