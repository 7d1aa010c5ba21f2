"""Prove that a Keras model is the same function as an nn.Module, with the same parameters; name every difference.

`prove` is the whole way. It believes nothing: what must be covered comes from the module, the claims only say where to
look, and a claim that is missing, wrong or empty is a finding. docs/numerics.md explains the runs and the limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from torch import nn

from translator.claims import Claims
from translator.errors import InputError
from translator.verdict import Difference, Effect, Report
from translator.verify import ledger as books
from translator.verify.claim_index import ROOT, ClaimIndex, index_claims
from translator.verify.configuration import compare_configuration, epsilon_folded, variance_makes_up
from translator.verify.findings import Book, Limits
from translator.verify.forward import raised_in_the_proof
from translator.verify.inputs import first_row, in_dtype, other_sizes, proof_inputs, wide_inputs
from translator.verify.keras_graph import KerasGraph
from translator.verify.keras_record import graph_of_any
from translator.verify.keras_replay import Segment, backend_errors
from translator.verify.precision import only_float64
from translator.verify.probes import TORCH_ERRORS, LeafProbes, outputs_if_taken
from translator.verify.rounding import note_if_far
from translator.verify.runs import Bench, Inputs, in_float64, input_problems
from translator.verify.squeezed import first_squeezed
from translator.verify.structure import Uncovered, find_uncovered, unused_parameters
from translator.verify.torch_record import Key, evaluating, outputs_of
from translator.verify.weights import LoadState, constant_names, merged_sums, randomised, sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is judged. load_state: sets the Keras model's weights from PyTorch tensors by state-dict name, a black box
    of the engine's; None where there is none, and the proof runs on the models' own weights. graph: of the Keras model,
    where the claims speak of one that was recorded or split; None for the model's own."""

    keras_model: keras.Model
    claims: Claims
    load_state: LoadState | None = None
    graph: KerasGraph | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofOptions:
    """How to prove.

    seed: of all random inputs and weights. dtypes: of the runs; float64 decides, float32 reports rounding (and decides
    with `limit_f32` where it is alone). limit_f64: the relative error that passes. limit_rounded: the same where Keras'
    weights were computed from PyTorch's (folded). probes: ask each leaf module more than one input. batch: rows of the
    inputs, None for as many as the example has. on_progress: gets (stage, done, total).
    """

    seed: int = 0
    dtypes: tuple[str, ...] = ("float32", "float64")
    limit_f64: float = 1e-9
    limit_f32: float = 1e-4
    limit_rounded: float = 1e-5
    probes: bool = True
    batch: int | None = 2
    on_progress: Callable[[str, int, int], None] | None = None


@dataclass(slots=True, kw_only=True)
class Proof:
    """Everything a proof knows while it runs; `verdict` material in the end."""

    module: nn.Module
    subject: Subject
    options: ProofOptions
    graph: KerasGraph
    index: ClaimIndex
    parts: Mapping[Key, Segment]
    limits: Limits
    book: Book = field(default_factory=Book)
    uncovered: list[Uncovered] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    as_given: bool = False
    configured: int = 0
    configuration: list[Difference] = field(default_factory=list)


def prove(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    subject: Subject,
    options: ProofOptions | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Report:
    """Judge `subject` against `module`; the report has no artifact.

    The module is run in evaluation mode, and both models are afterwards bit for bit what they were.
    Raises InputError where PyTorch itself can't run on the example.
    """
    from translator.verify.conclusion import report_of

    started = time.perf_counter()
    options = options or ProofOptions()
    if only_float64(module):
        options = replace(options, dtypes=("float64",))
    kwargs = dict(example_kwargs or {})
    proof = _prepare(module, subject, options)
    inputs = _own_inputs(proof, example_inputs, kwargs)
    problems = input_problems(proof.index, *inputs)
    unused = unused_parameters(module, *inputs, books.unbooked(module, subject.claims))
    if problems:
        proof.uncovered += [Uncovered(layer="(model)", why=p) for p in problems]
        proof.uncovered += [Uncovered(layer=p.layer, why=p.why) for p in proof.index.problems]
    else:
        one = _one_row(proof, inputs)
        rows = proof.options.batch if one is inputs else 1
        rng = np.random.default_rng([options.seed, 1])
        wide = wide_inputs(example_inputs, kwargs, proof.index, rng, None if proof.as_given else rows)
        with raised_in_the_proof(module):
            _run_all(proof, inputs, one, wide)
    _configure(proof)
    ledger = books.keep_books(module, subject.keras_model, subject.claims, unused)
    return report_of(proof, ledger, seconds=time.perf_counter() - started)


def _prepare(module: nn.Module, subject: Subject, options: ProofOptions) -> Proof:
    graph = subject.graph or graph_of_any(subject.keras_model)
    index = index_claims(subject.claims, graph)
    modules = dict(module.named_modules())
    alone = [k for k in index.twins if k[0] in modules and next(modules[k[0]].children(), None) is None]
    deciding = "float64" in options.dtypes
    by_dtype: dict[str, float | None] = {
        "float32": None if deciding else options.limit_f32,
        "float64": options.limit_f64,
        "own weights": options.limit_f64,
    }
    tensors = books.held_tensors(module)
    held_as = {
        how: frozenset(
            tensors[n].layer for c in subject.claims.parameters if c.how == how for n in c.tensors if n in tensors
        )
        for how in ("computed", "sum")
    }
    return Proof(
        module=module,
        subject=subject,
        options=options,
        graph=graph,
        index=index,
        parts={key: part for key in alone if (part := index.part(key)) is not None},
        limits=Limits(
            by_dtype=by_dtype, computed=held_as["computed"], summed=held_as["sum"], rounded=options.limit_rounded
        ),
    )


def _own_inputs(proof: Proof, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    """The example with the wanted number of rows, if both models take it so; else as it came."""
    failed: Exception | None = None
    followed_at = _batch_followed(proof)
    if followed_at is not None:
        proof.as_given = True
        proof.notes.append(f"Keras' layers compute with a batch of {followed_at}: the proof used the example's rows")
    for batch in (None,) if proof.as_given else dict.fromkeys((proof.options.batch, None)):
        inputs = proof_inputs(args, kwargs, proof.index, np.random.default_rng(proof.options.seed), batch)
        try:
            with evaluating(proof.module):
                outputs_of(proof.module, *inputs)
        except TORCH_ERRORS as error:
            failed = error
        else:
            if batch != proof.options.batch and not proof.as_given:
                proof.as_given = True
                proof.notes.append(f"the model does not take {proof.options.batch} rows: the proof used the example's")
            return inputs
    raise InputError(
        f"{type(proof.module).__name__} does not run on its example inputs: {failed}",
        fix="check the inputs' number, shapes and dtypes",
    ) from failed


def _batch_followed(proof: Proof) -> int | None:
    """The batch at which a model that takes any was followed, because its layers compute with it; else None.

    A model that takes one batch alone is judged with others, and found to take one alone.
    """
    own = [tensor.shape for tensor in getattr(proof.subject.keras_model, "inputs", None) or ()]
    shapes = [proof.graph.shapes[number] for number in proof.graph.inputs]
    known = [shape[0] for shape in shapes if shape and shape[0] is not None]
    return known[0] if known and not any(shape and shape[0] is not None for shape in own) else None


def _run_all(proof: Proof, inputs: Inputs, one: Inputs, wide: Inputs) -> None:
    """All runs: with the models' own weights, and, where those say too little, with random ones."""
    module, claims, options = proof.module, proof.subject.claims, proof.options
    names, load = constant_names(module, claims), proof.subject.load_state
    summed = sums(claims)
    if names and load is None:
        proof.notes.append(f"{len(names)} constant tensors (such as {names[0]}) are used as they are")
    random = load is not None and bool(names or summed)
    runs = 1 + ("float64" in options.dtypes) + random + options.probes
    bench = Bench(module=module, index=proof.index, parts=proof.parts, on_call=_counter(proof, runs))
    if "float64" not in options.dtypes:
        _main_runs(proof, bench, inputs, wide, "float32")
        return
    if "float32" in options.dtypes:
        note_if_far(proof.book, bench, one, bench.run(proof.book, one, dtype="float32", slot="float32"), proof.notes)
    with ExitStack() as stack:
        if random and load is not None:
            with merged_sums(module, claims), in_float64(bench):
                bench.run(proof.book, one, dtype="float64", slot="own weights")
            random = _randomise(proof, stack, load, names)
        if not random:
            stack.enter_context(merged_sums(module, claims))
        stack.enter_context(in_float64(bench))
        _main_runs(proof, bench, inputs, wide, "float64")


def _one_row(proof: Proof, inputs: Inputs) -> Inputs:
    """The first row alone, if PyTorch takes it: a GroupNorm with one number for each group needs more than one.

    And if a row alone keeps its axis: `x.squeeze()` takes that of a batch of one away, which no graph can.
    """
    if proof.as_given:
        return inputs
    row = first_row(*inputs, proof.index)
    try:
        squeezed = first_squeezed(proof.module, inputs, row)
    except TORCH_ERRORS as error:
        proof.notes.append(f"the model does not take one row alone: {type(error).__name__}")
        return inputs
    if squeezed is not None:
        proof.configuration.append(squeezed)
        return inputs
    return row


def _randomise(proof: Proof, stack: ExitStack, load: LoadState, names: list[str]) -> bool:
    """Random weights on both sides until `stack` closes; False, and a finding, where Keras can't take them."""
    model, options = proof.subject.keras_model, proof.options
    try:
        stack.enter_context(randomised(proof.module, model, load, names, proof.subject.claims, options.seed))
    except backend_errors() as error:
        proof.uncovered.append(Uncovered(layer="(model)", why=f"PyTorch's weights can't be loaded: {error}"))
        return False
    proof.notes.append(f"{len(names)} constant tensors were random in the proof, and have their own values again")
    return True


def _main_runs(proof: Proof, bench: Bench, inputs: Inputs, wide: Inputs, dtype: str) -> None:
    """The run that decides, with the probes and the question of coverage; then the one in a wide range."""
    seed, book = proof.options.seed, proof.book
    probes = LeafProbes(parts=proof.parts, rng=np.random.default_rng([seed, 2]), enabled=proof.options.probes)
    outputs = bench.run(book, inputs, dtype=dtype, slot=dtype, probes=probes)
    proof.uncovered += find_uncovered(
        proof.index, book, probes.partly, proof.module, *in_dtype(*inputs, dtype), outputs=len(outputs)
    )
    _at_another_size(proof, bench, inputs, dtype)
    if not proof.options.probes:
        return
    for rng in (np.random.default_rng([seed, 3]), None):
        label = "in a wide range" if rng is not None else "on wide inputs"
        try:
            bench.run(book, wide, dtype=dtype, slot=dtype, label=label, chain=False, made_up=rng)
        except TORCH_ERRORS as error:
            proof.notes.append(f"PyTorch does not run {label}: {type(error).__name__}")
        else:
            return


def _at_another_size(proof: Proof, bench: Bench, inputs: Inputs, dtype: str) -> None:
    """Where the Keras model takes images of any size, one more run at another than the example's."""
    others = list(other_sizes(*inputs, proof.index, np.random.default_rng([proof.options.seed, 4])))
    taken = next((o for o in others if outputs_if_taken(proof.module, *in_dtype(*o, dtype)) is not None), None)
    if taken is not None:
        bench.run(proof.book, taken, dtype=dtype, slot=dtype, label="at another size")
    elif others:
        proof.notes.append("PyTorch takes no other size of those that were tried: only the example's was proven")


def _configure(proof: Proof) -> None:
    """Compare the settings of each leaf module, once, with those of the Keras operations in its place."""
    modules = dict(proof.module.named_modules())
    for key, twin in proof.index.twins.items():
        entry = proof.book.entries.get(key)
        if entry is None or not entry.leaf or key[1] or entry.depth < 0 or key == ROOT or twin.covers:
            continue
        part = proof.parts.get(key) or proof.index.part(key)
        if part is None:
            continue
        operations = list({id(op): op for op in (proof.graph.steps[i].operation for i in part.steps)}.values())
        proof.configured += 1
        found = compare_configuration(key[0], modules[key[0]], operations, input_shape=entry.input_shape)
        if not entry.wrong(proof.limits):
            # Another kind of layer that computes the same under every probe is only another way to write it.
            found = [replace(d, effect=Effect.NOTHING) if d.kind == "kind" else d for d in found]
        if "epsilon-folded" in proof.subject.claims.explained and variance_makes_up(modules[key[0]], operations):
            found = [epsilon_folded(d) if d.kind == "epsilon" else d for d in found]
        proof.configuration += found


def _counter(proof: Proof, runs: int) -> Callable[[], None] | None:
    """Tells the caller of every finished module call, out of those that are claimed, over all runs."""
    told = proof.options.on_progress
    if told is None:
        return None
    total, done = runs * max(sum(1 for _ in proof.module.modules()), 1), 0

    def one_more() -> None:
        nonlocal done
        done += 1
        told("verify", min(done, total), total)

    return one_more
