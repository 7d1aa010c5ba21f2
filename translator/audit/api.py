"""Audit any pair, move weights across, and a check for test suites: the public Python functions."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from translator import runtime

runtime.prepare()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from torch import nn  # noqa: E402

from translator.audit.align import Alignment, align  # noqa: E402
from translator.audit.baseline import apply_baseline  # noqa: E402
from translator.audit.conclusion import conclude, no_match  # noqa: E402
from translator.audit.transfer import Back, Moves, plan_to_keras, refusal, tensors_behind, to_state  # noqa: E402
from translator.audit.truncate import features_end, truncated  # noqa: E402
from translator.audit.weigh import Relation, kept, load, relation, weigh  # noqa: E402
from translator.claims import Claims  # noqa: E402
from translator.config import AuditRequest, TransferRequest  # noqa: E402
from translator.errors import InputError  # noqa: E402
from translator.verdict import Effect, Report  # noqa: E402
from translator.verify.proof import ProofOptions, Subject, prove  # noqa: E402
from translator.verify.weights import state_arrays  # noqa: E402

WeightMode = Literal["auto", "compare", "ignore"]
Progress = Callable[[str], None]
MATCHING = 0.5
"""Below this share of PyTorch's weights with a partner, the two models have nothing to do with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How to audit.

    weights: "compare" judges the models with the weights they hold; "ignore" judges the architectures, with PyTorch's
    weights moved into Keras for the time of the audit; "auto" does the one where the weights have to do with each
    other, the other where they were drawn apart. initialisers: in that case compare what fresh weights are drawn from.
    """

    weights: WeightMode = "auto"
    initialisers: bool = True
    proof: ProofOptions = field(default_factory=ProofOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a transfer did. report: the proof. state: the new state dict, for Keras to PyTorch. left: a sentence for
    each tensor or variable that stays as it was (`partial`)."""

    report: Report
    state: Mapping[str, np.ndarray] | None = None
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def audit(
    module: nn.Module,
    keras_model: keras.Model,
    example_inputs: Any,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    weights: WeightMode = "auto",
    seed: int = 0,
    baseline: str | Path | None = None,
    options: AuditOptions | None = None,
) -> Report:
    """Compare a PyTorch module with any Keras model: every difference named, the parameters balanced, layers judged.

    example_inputs: what the module is called with, a tensor or a tuple. Both models are afterwards what they were.
    baseline: a file of accepted differences. Raises InputError where the models can't be given the same inputs.
    """
    options = options or AuditOptions(weights=weights, proof=ProofOptions(seed=seed))
    inputs = _as_tuple(example_inputs)
    started = time.perf_counter()
    module, alignment = _aligned(module, keras_model, inputs, example_kwargs)
    aligned = time.perf_counter() - started
    if alignment.coverage < MATCHING:
        report = no_match(alignment, module, keras_model, seed=options.proof.seed)
    else:
        report = _judged(alignment, module, keras_model, inputs, example_kwargs, options)
    report = replace(report, timing={"align": aligned, **report.timing})
    return apply_baseline(report, Path(baseline)) if baseline is not None else report


def assert_equivalent(
    module: nn.Module,
    keras_model: keras.Model,
    example_inputs: Any,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    weights: WeightMode = "compare",
    seed: int = 0,
    baseline: str | Path | None = None,
    options: AuditOptions | None = None,
) -> Report:
    """Raise AssertionError, with the first screen of the audit, unless the two are the same function as they are.

    weights: "compare" (the default) takes the weights for a part of the function; "ignore" asserts the architecture.
    """
    found = audit(
        module, keras_model, example_inputs, example_kwargs=example_kwargs, weights=weights, seed=seed,
        baseline=baseline, options=options,
    )  # fmt: skip
    if found.exit_status:
        raise AssertionError(first_screen(found))
    return found


def transfer(
    source: nn.Module | keras.Model,
    target: nn.Module | keras.Model,
    example_inputs: Any,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    partial: bool = False,
    fold_epsilon: bool = False,
    seed: int = 0,
    proof: ProofOptions | None = None,
) -> Transfer:
    """Move the weights of `source` into `target`, in place, and prove the result.

    One of the two is an nn.Module, the other a Keras model. partial: move what matches, list the rest. fold_epsilon:
    let the moving variances make up for another epsilon. Raises InputError, with every reason, where a weight has no
    place on the other side.
    """
    options = proof or ProofOptions(seed=seed)
    inputs = _as_tuple(example_inputs)
    if isinstance(source, nn.Module) and isinstance(target, keras.Model):
        return _to_keras(source, target, inputs, example_kwargs, options, partial=partial, fold_epsilon=fold_epsilon)
    if isinstance(source, keras.Model) and isinstance(target, nn.Module):
        return _to_torch(source, target, inputs, example_kwargs, options, partial=partial)
    raise InputError(
        f"transfer() takes an nn.Module and a keras.Model, not {type(source).__name__} and {type(target).__name__}"
    )


def audit_files(request: AuditRequest, *, on_progress: Progress | None = None) -> Report:
    """`translator audit`, for the command line."""
    from translator.audit.files import audit_files as run

    return run(request, on_progress=on_progress)


def transfer_files(request: TransferRequest, *, on_progress: Progress | None = None) -> Report:
    """`translator transfer`, for the command line."""
    from translator.audit.files import transfer_files as run

    return run(request, on_progress=on_progress)


def subject_of_transfer(
    module: nn.Module, model: keras.Model, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None
) -> tuple[nn.Module, Claims]:
    """What a transferred model is judged against: the module, cut off where Keras ends, and the claims."""
    module, alignment = _aligned(module, model, inputs, kwargs)
    return module, alignment.claims


def first_screen(report: Report, width: int = 120) -> str:
    """The report as it is shown on a terminal."""
    from rich.console import Console

    from translator.report.text import render

    text = io.StringIO()
    render(report, Console(file=text, width=width, color_system=None))
    return text.getvalue().rstrip()


def _as_tuple(inputs: Any) -> tuple[Any, ...]:
    """A single tensor is taken for the one argument that it is."""
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def _aligned(
    module: nn.Module, model: keras.Model, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None
) -> tuple[nn.Module, Alignment]:
    """The alignment; where Keras ends in the middle of PyTorch's model, with the module cut off there."""
    alignment = _checked(align(module, model, inputs, kwargs))
    end = features_end(alignment) if alignment.coverage >= MATCHING else None
    if end is None:
        return module, alignment
    short = truncated(module, end)
    return short, align(short, model, inputs, kwargs)


def _checked(alignment: Alignment) -> Alignment:
    """Models that belong together must take the same inputs; of others it is enough to say that they don't."""
    if alignment.misfit is not None and alignment.coverage >= MATCHING:
        raise alignment.misfit
    return alignment


def _subject(alignment: Alignment, model: keras.Model) -> Subject:
    return Subject(
        keras_model=model,
        claims=alignment.claims,
        load_state=lambda values: load(alignment.bound, values),
        graph=alignment.graph,
    )


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
        found = prove(module, inputs, _subject(alignment, model), options.proof, kwargs)
        return conclude(
            found, alignment, module, model, weighed=() if moved else weighed, related=related, moved=moved,
            initialisers=options.initialisers and related is Relation.UNRELATED,
        )  # fmt: skip


def _to_keras(
    module: nn.Module,
    model: keras.Model,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    options: ProofOptions,
    *,
    partial: bool,
    fold_epsilon: bool,
) -> Transfer:
    module, alignment = _aligned(module, model, inputs, kwargs)
    _check_match(alignment, partial=partial)
    behind = tensors_behind(alignment)
    moves = plan_to_keras(alignment, behind=behind, partial=partial, fold_epsilon=fold_epsilon)
    load(moves.bound, state_arrays(module), neutralise=True)
    alignment = alignment.with_bound(moves.bound)
    if moves.folded:
        explained = {**alignment.claims.explained, "epsilon-folded": "asked for"}
        alignment = replace(alignment, claims=replace(alignment.claims, explained=explained))
    report = _proof_of_transfer(alignment, module, model, inputs, kwargs, options, notes=_told(moves))
    return Transfer(report=report, left=moves.left, notes=moves.notes)


def _to_torch(
    model: keras.Model,
    module: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    options: ProofOptions,
    *,
    partial: bool,
) -> Transfer:
    alignment = _checked(align(module, model, inputs, kwargs))
    _check_match(alignment, partial=partial)
    back = to_state(alignment, module, partial=partial)
    own = module.state_dict()
    for name, value in back.state.items():
        own[name].copy_(_as_tensor(value, own[name]))
    report = _proof_of_transfer(alignment, module, model, inputs, kwargs, options, notes=_told(back))
    state = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    return Transfer(report=report, state=state, left=back.left, notes=back.notes)


def _as_tensor(value: np.ndarray, like: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(value)).to(like.dtype).reshape(like.shape)


def _told(moves: Moves | Back) -> tuple[str, ...]:
    return (*moves.notes, *(f"not moved: {reason}" for reason in moves.left))


def _check_match(alignment: Alignment, *, partial: bool) -> None:
    if alignment.misfit is not None and partial:
        raise alignment.misfit
    if alignment.coverage < MATCHING and not partial:
        percent = f"{alignment.coverage:.0%}"
        raise refusal(
            "these models do not match", [f"the best alignment covers {percent} of PyTorch's parameters"]
        )  # fmt: skip


def _proof_of_transfer(
    alignment: Alignment,
    module: nn.Module,
    model: keras.Model,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    options: ProofOptions,
    *,
    notes: tuple[str, ...],
) -> Report:
    found = prove(module, inputs, _subject(alignment, model), options, kwargs)
    weighed = weigh(alignment.bound, state_arrays(module))
    report = conclude(
        found, alignment, module, model, weighed=weighed, related=Relation.SAME, moved=False, initialisers=False,
        beyond=Effect.NOTHING,
    )  # fmt: skip
    return replace(report, notes=(*notes, *report.notes))
