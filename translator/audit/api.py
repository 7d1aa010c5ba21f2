"""Audit any pair, move weights across, and a check for test suites: the public Python functions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from translator import runtime

runtime.prepare()

import keras  # noqa: E402
from torch import nn  # noqa: E402

from translator.audit.align import Alignment, align  # noqa: E402
from translator.audit.baseline import apply_baseline  # noqa: E402
from translator.audit.conclusion import conclude, no_match  # noqa: E402
from translator.audit.weigh import Relation, kept, load, relation, weigh  # noqa: E402
from translator.verdict import Report  # noqa: E402
from translator.verify.proof import ProofOptions, Subject, prove  # noqa: E402
from translator.verify.weights import state_arrays  # noqa: E402

WeightMode = Literal["auto", "compare", "ignore"]
MATCHING = 0.5
"""Below this share of PyTorch's weights with a partner, the two models have nothing to do with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How to audit.

    weights: "compare" judges the models with the weights they hold; "ignore" judges the architectures, with PyTorch's
    weights moved into Keras for the time of the audit; "auto" does the one where the weights have to do with each
    other, the other where they were drawn apart. initialisers: compare what fresh weights are drawn from.
    """

    weights: WeightMode = "auto"
    initialisers: bool = True
    proof: ProofOptions = field(default_factory=ProofOptions)


def audit(
    module: nn.Module,
    keras_model: keras.Model,
    example_inputs: tuple[Any, ...],
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    weights: WeightMode = "auto",
    seed: int = 0,
    baseline: str | Path | None = None,
    options: AuditOptions | None = None,
) -> Report:
    """Compare a PyTorch module with any Keras model: every difference named, the parameters balanced, layers judged.

    example_inputs: what the module is called with. Both models are afterwards what they were. baseline: a file of
    accepted gaps. Raises InputError where the models can't be given the same inputs.
    """
    options = options or AuditOptions(weights=weights, proof=ProofOptions(seed=seed))
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    started = time.perf_counter()
    alignment = align(module, keras_model, inputs, example_kwargs)
    aligned = time.perf_counter() - started
    if alignment.coverage < MATCHING:
        report = no_match(alignment, module, keras_model, seed=options.proof.seed)
    else:
        report = _judged(alignment, module, keras_model, inputs, example_kwargs, options)
    report = replace(report, timing={"align": aligned, **report.timing})
    return apply_baseline(report, Path(baseline)) if baseline is not None else report


def _judged(
    alignment: Alignment,
    module: nn.Module,
    model: keras.Model,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    options: AuditOptions,
) -> Report:
    state = state_arrays(module)
    weighed = weigh(alignment.bound, state)
    related = relation(weighed)
    moved = options.weights == "ignore" or (options.weights == "auto" and related is Relation.UNRELATED)
    with ExitStack() as stack:
        if moved:
            stack.enter_context(kept(model))
            load(alignment.bound, state, neutralise=True)
        subject = Subject(
            keras_model=model,
            claims=alignment.claims,
            load_state=lambda values: load(alignment.bound, values),
            graph=alignment.graph,
        )
        found = prove(module, inputs, subject, options.proof, kwargs)
        return conclude(
            found, alignment, module, model, weighed=() if moved else weighed, related=related, moved=moved,
            initialisers=options.initialisers,
        )  # fmt: skip
