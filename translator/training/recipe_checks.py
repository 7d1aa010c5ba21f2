"""Is a Keras recipe the PyTorch recipe? Each part is tested alone, on right inputs, and what is wrong is named.

A wrong batch, head, loss, BatchNorm or optimizer each shows as "the weights differ" once a model trains. Tested one by
one, each is found even where several are wrong at once.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import torch

from translator.errors import InputError
from translator.training.feed_checks import fed_wrongly, labels_wrong, values_of
from translator.training.keras_side import numbers
from translator.training.mapped import Mapped
from translator.training.optimizer_checks import optimizer_wrong
from translator.training.pairing import Pairing
from translator.training.torch_side import Batch, TorchSide, in_dtype
from translator.training.user_recipe import KerasRecipe, name_of
from translator.user_code import users_code
from translator.verdict import Difference, Effect
from translator.verify.torch_record import evaluating
from translator.verify.training import ratio


def head_wrong(
    pairing: Pairing, torch_side: TorchSide, keras_outputs: np.ndarray, want: np.ndarray
) -> Iterator[Difference]:
    """Whether Keras puts out what PyTorch does: probabilities in place of logits are recognised. Both in float64."""
    if ratio(float(np.abs(keras_outputs - want).max()), float(np.abs(want).max())) <= _LIMIT:
        return
    axis = pairing.class_axis(torch_side.output)
    for name, function in (("softmax", lambda x: _softmax(x, axis)), ("sigmoid", lambda x: 1 / (1 + np.exp(-x)))):
        if np.abs(keras_outputs - np.asarray(function(want))).max() <= _LIMIT:
            yield _probabilities(f"{name} of PyTorch's outputs", name)
            return
    if _are_shares(keras_outputs, axis) and not _are_shares(want, axis):
        yield _probabilities("the outputs of each example sum to 1", "softmax")
    yield Difference(
        kind="function",
        layers=("output",),
        torch=values_of(want),
        keras=values_of(keras_outputs),
        effect=Effect.INFERENCE,
        fix="translator audit names the layers that differ",
        detail="the two models put out different numbers for the same batch",
    )


def _probabilities(words: str, name: str) -> Difference:
    return Difference(
        kind="probabilities",
        layers=("output",),
        torch="logits",
        keras=f"probabilities: {words}",
        effect=Effect.INFERENCE,
        fix=f"leave the {name} out and take from_logits=True in the loss",
    )


def _are_shares(outputs: np.ndarray, axis: int) -> bool:
    """Whether they are none below 0 and sum to 1 over the classes."""
    return bool(np.all(outputs >= 0)) and bool(np.all(np.abs(outputs.sum(axis) - 1) <= _MEASURED))


def loss_wrong(pairing: Pairing, torch_side: TorchSide, batch: Batch, loss: Any, exact: Mapped) -> Difference | None:
    """Whether the user's loss is PyTorch's, given PyTorch's own outputs and right targets. In float64."""
    target = pairing.keras_target(batch.target, torch_side.output, torch_side.dtype)
    with torch.no_grad():
        raw = torch_side.forward(batch)
    outputs = _laid_out(pairing, torch_side, raw)
    want = float(keras.ops.sum(exact.keras(target, outputs)))
    name, flag = name_of(loss), getattr(loss, "_fn_kwargs", {}).get("from_logits")
    try:
        with users_code("raises:"):
            got = float(keras.ops.sum(loss(_targets_for(loss, target, outputs), outputs)))
    except InputError as error:
        return _loss_difference(torch_side, name, exact, error.what.splitlines()[0])
    if ratio(abs(got - want), abs(want)) <= _LIMIT:
        return None
    if flag is False:
        return Difference(
            kind="from-logits",
            layers=("loss",),
            torch=f"{type(torch_side.loss).__name__} takes logits",
            keras=f"{name}(from_logits=False) takes probabilities",
            effect=Effect.TRAINING,
            fix=f"keras.losses.{name}(from_logits=True)",
        )
    words = f"{got:.6g} where PyTorch has {want:.6g}"
    for setting, other in _other_settings(torch_side.loss):
        with torch.no_grad():
            if ratio(abs(got - float(other(raw, in_dtype(batch.target, raw.dtype)).sum())), abs(got)) <= _LIMIT:
                left = f"computes {type(torch_side.loss).__name__}({setting}={getattr(other, setting)})"
                return _loss_difference(torch_side, name, exact, f"{left}: {words}", setting)
    return _loss_difference(torch_side, name, exact, words)


def _other_settings(loss: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """PyTorch's loss with one of its settings left out, or with another reduction."""
    usual = (("label_smoothing", 0.0), ("weight", None), ("pos_weight", None), ("delta", 1.0), ("beta", 1.0))
    choices = [*usual, *(("reduction", reduction) for reduction in ("mean", "sum"))]
    for setting, value in choices:
        if hasattr(loss, setting) and getattr(loss, setting) is not value and getattr(loss, setting) != value:
            other = copy.deepcopy(loss)
            setattr(other, setting, value)
            yield setting, other


def _loss_difference(torch_side: TorchSide, name: str, exact: Mapped, words: str, setting: str = "") -> Difference:
    return Difference(
        kind=f"loss-{setting}" if setting else "loss",
        layers=("loss",),
        torch=type(torch_side.loss).__name__ + (f"({_setting(torch_side.loss, setting)})" if setting else ""),
        keras=f"{name} {words}",
        effect=Effect.TRAINING,
        fix=f"use {exact.name}, as translator.training.losses.map_loss makes it",
    )


def _setting(loss: torch.nn.Module, setting: str) -> str:
    value = getattr(loss, setting)
    return f"{setting}={'…' if isinstance(value, torch.Tensor) else value}"


def statistics_wrong(pairing: Pairing, torch_side: TorchSide, batch: Batch) -> Iterator[Difference]:
    """BatchNorm momenta that differ, measured: of the way that one batch moves a mean, the same batch moves it a share
    further, and that share is what the layer keeps. The models' statistics are moved by this.
    """
    inputs = pairing.keras_inputs(batch, torch_side.dtype)
    means = [link for link in pairing.links if link.tensors[0].endswith("running_mean")]
    seen = []
    for _ in range(3):
        seen.append({link.path: numbers(link.variable).astype(np.float64) for link in means})
        pairing.model(inputs, training=True)
    wrong: dict[tuple[str, str], list[str]] = {}
    still, frozen = [], {norm.moving_mean.path for norm in _frozen_norms(pairing.model)}
    for link in means:
        first, second = (b[link.path] - a[link.path] for a, b in itertools.pairwise(seen))
        moved = float((first * first).sum())
        kept = float((second * first).sum()) / moved if moved else 1.0
        own = _momentum(torch_side.module, link.tensors[0])
        if link.variable.path in frozen:
            still.append(link.path.rpartition("/")[0])
        elif own is not None and abs(kept - (1.0 - own)) > _MEASURED:
            wrong.setdefault((f"{own:g}", f"{kept:.6g}"), []).append(link.path.rpartition("/")[0])
    if still:
        yield Difference(
            kind="batchnorm-frozen",
            layers=tuple(still),
            torch="normalises by the batch's own statistics, and takes them in",
            keras="keeps its statistics, and normalises by them",
            effect=Effect.TRAINING,
            fix="set trainable=True on the layer; gamma and beta stand still where the optimizer doesn't get them",
            detail="a Keras BatchNormalization that isn't trainable runs as in inference",
        )
    for (momentum, kept_text), layers in wrong.items():
        right = f"{1.0 - float(momentum):g}"
        yield Difference(
            kind="batchnorm-momentum",
            layers=tuple(layers),
            torch=f"momentum={momentum}: keeps {right} of the old statistics",
            keras=f"momentum={kept_text}: keeps {kept_text}",
            effect=Effect.TRAINING,
            fix=f"BatchNormalization(momentum={right})",
        )


def _frozen_norms(model: keras.Model) -> list[Any]:
    """The layers with running statistics that aren't trainable: Keras runs them as in inference."""
    return [x for x in model._flatten_layers() if hasattr(x, "moving_mean") and not x.trainable]


def _momentum(module: torch.nn.Module, name: str) -> float | None:
    """PyTorch's momentum of the BatchNorm that holds that tensor; None where it averages over all batches."""
    part = module.get_submodule(name.rpartition(".")[0])
    momentum = getattr(part, "momentum", None)
    return float(momentum) if momentum is not None else None


def _targets_for(loss: Any, target: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Right labels in the form that this loss takes."""
    if name_of(loss) == "CategoricalCrossentropy" and target.dtype.kind in "iu":
        return np.asarray(np.eye(outputs.shape[-1])[target])
    return target


def _laid_out(pairing: Pairing, torch_side: TorchSide, raw: torch.Tensor) -> np.ndarray:
    return pairing.keras_target(raw, torch_side.output, torch_side.dtype)


def regularisers(pairing: Pairing) -> Iterator[Difference]:
    """What layers of the Keras model add to the loss."""
    named: dict[str, list[str]] = {}
    for layer in pairing.model._flatten_layers(include_self=False, recursive=True):
        for setting, value in vars(layer).items():
            if setting.endswith("_regularizer") and value is not None:
                named.setdefault(f"{setting}={type(value).__name__}", []).append(layer.name)
    for text, layers in named.items():
        yield Difference(
            kind="regulariser",
            layers=tuple(dict.fromkeys(layers)),
            torch="adds nothing to the loss",
            keras=f"{text} adds to the loss",
            effect=Effect.TRAINING,
            fix="leave it out; PyTorch's L2 is the optimizer's weight_decay",
        )


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


_LIMIT = 1e-8
"""Relative error up to which two float64 computations are the same."""

_MEASURED = 1e-6
"""How exactly a momentum is read off two moves of a mean."""


def check_model(pairing: Pairing, torch_side: TorchSide, batch: Batch) -> list[Difference]:
    """What in the model itself makes training differ: its head, and what its BatchNorms keep.

    Both models compute in float64 and hold the same weights. Where a BatchNorm is frozen in Keras, which is named by
    itself, the outputs are compared as in evaluation.
    """
    training = not _frozen_norms(pairing.model)
    with torch.no_grad(), nullcontext() if training else evaluating(torch_side.module):
        want = _laid_out(pairing, torch_side, torch_side.forward(batch))
    inputs = pairing.keras_inputs(batch, torch_side.dtype)
    got = numbers(pairing.pick(torch_side.output)(pairing.model(inputs, training=training)))
    head = head_wrong(pairing, torch_side, got, want)
    return [*head, *statistics_wrong(pairing, torch_side, batch), *regularisers(pairing)]


def check_recipe(
    pairing: Pairing,
    torch_side: TorchSide,
    batch: Batch,
    theirs: KerasRecipe,
    loss: Mapped,
    optimizer: Mapped,
    steps: int,
) -> list[Difference]:
    """Everything that is wrong with a user's recipe, given the recipe that is right. In float64.

    steps: how many are trained, at which the learning rates are compared.
    """
    found: list[Difference] = []
    if theirs.prepare is not None:
        found += fed_wrongly(pairing, theirs.prepare, batch, theirs.loss or loss.keras)
    elif theirs.loss is not None:
        labels = batch.target.numpy()
        found += labels_wrong(labels, labels, theirs.loss)
    wrong = loss_wrong(pairing, torch_side, batch, theirs.loss, loss) if theirs.loss is not None else None
    if wrong is not None:
        found.append(wrong)
    if theirs.optimizer is not None:
        found += optimizer_wrong(pairing, theirs.optimizer, optimizer, steps)
    return found
