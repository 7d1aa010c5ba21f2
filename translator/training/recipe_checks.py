"""Is a Keras recipe the PyTorch recipe? Each part is tested alone, on right inputs, and what is wrong is named.

A wrong batch, head, loss, BatchNorm or optimizer each shows as "the weights differ" once a model trains. Tested one by
one, each is found even where several are wrong at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import torch

from translator.errors import InputError
from translator.training.keras_side import numbers
from translator.training.mapped import Mapped, exact_in_float64
from translator.training.pairing import Pairing
from translator.training.torch_side import Batch, TorchSide
from translator.training.user_recipe import KerasRecipe, Prepare, name_of
from translator.user_code import users_code
from translator.verdict import Difference, Effect
from translator.verify.training import ratio


def fed_wrongly(pairing: Pairing, prepare: Prepare, batch: Batch, loss: Any) -> Iterator[Difference]:
    """What is wrong with the batches that the user's pipeline makes."""
    given = next(a for a in batch.args if isinstance(a, torch.Tensor))
    images, labels = fed(prepare, batch)
    images, want = np.asarray(images), pairing.keras_inputs(batch, torch.float32)
    if images.shape != want.shape or not np.array_equal(images, want):
        yield _images(images, want, given.numpy())
    yield from labels_wrong(np.asarray(labels), batch.target.numpy(), loss)


def fed(prepare: Prepare, batch: Batch) -> tuple[Any, Any]:
    """What the user's pipeline makes of a batch. Raises InputError where it raises."""
    given = next(a for a in batch.args if isinstance(a, torch.Tensor))
    with users_code("the pipeline of the Keras side raised:"):
        images, labels = prepare(given.numpy().copy(), batch.target.numpy().copy())
    return images, labels


def _images(got: np.ndarray, want: np.ndarray, raw: np.ndarray) -> Difference:
    if got.shape == raw.shape and np.array_equal(got, raw):
        fix = "transpose the batch: np.transpose(images, (0, 2, 3, 1))"
        words = ("N, C, H, W", "N, C, H, W where the model reads N, H, W, C")
    elif got.size == want.size and np.array_equal(np.sort(got.ravel()), np.sort(want.ravel())):
        fix = "transpose, don't reshape: np.transpose(images, (0, 2, 3, 1))"
        words = ("N, C, H, W", "the same numbers in another order")
    else:
        fix = "scale and normalise the images as on the PyTorch side"
        words = (f"{_range(want)}", f"{_range(got)}, shape {got.shape}")
    return Difference(
        kind="batch-layout" if "order" in words[1] or "reads" in words[1] else "batch-values",
        layers=("input",),
        torch=words[0],
        keras=words[1],
        effect=Effect.TRAINING,
        fix=fix,
    )


def labels_wrong(labels: np.ndarray, want: np.ndarray, loss: Any) -> Iterator[Difference]:
    """One-hot labels for a sparse loss, or integers for a categorical one."""
    name, integer = name_of(loss), want.dtype.kind in "iu"
    if not integer:
        return
    flat = labels.reshape(len(labels), -1)
    one_hot = flat.shape[1] > want[0].size and bool(np.all(np.isin(flat, (0, 1)))) and bool(np.all(flat.sum(1) == 1))
    if "Sparse" in name and one_hot:
        fix = "labels.argmax(axis=-1), or keras.losses.CategoricalCrossentropy(from_logits=True)"
        yield _label_difference(f"one-hot labels {labels.shape} in {name}", fix)
    elif name == "CategoricalCrossentropy" and not one_hot:
        fix = "keras.losses.SparseCategoricalCrossentropy(from_logits=True), or keras.utils.to_categorical(labels)"
        yield _label_difference(f"integer labels {labels.shape} in {name}", fix)


def _label_difference(words: str, fix: str) -> Difference:
    return Difference(
        kind="labels", layers=("loss",), torch="integer labels (N,)", keras=words, effect=Effect.TRAINING, fix=fix
    )


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
        torch=_range(want),
        keras=_range(keras_outputs),
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
    return _loss_difference(torch_side, name, exact, f"{got:.6g} where PyTorch has {want:.6g}")


def _loss_difference(torch_side: TorchSide, name: str, exact: Mapped, words: str) -> Difference:
    return Difference(
        kind="loss",
        layers=("loss",),
        torch=type(torch_side.loss).__name__,
        keras=f"{name} {words}",
        effect=Effect.TRAINING,
        fix=f"use {exact.name}, as translator.training.losses.map_loss makes it",
    )


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
    for link in means:
        first, second = (b[link.path] - a[link.path] for a, b in itertools.pairwise(seen))
        moved = float((first * first).sum())
        kept = float((second * first).sum()) / moved if moved else 1.0
        own = _momentum(torch_side.module, link.tensors[0])
        if own is not None and abs(kept - (1.0 - own)) > _MEASURED:
            wrong.setdefault((f"{own:g}", f"{kept:.6g}"), []).append(link.path.rpartition("/")[0])
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


def _momentum(module: torch.nn.Module, name: str) -> float | None:
    """PyTorch's momentum of the BatchNorm that holds that tensor; None where it averages over all batches."""
    part = module.get_submodule(name.rpartition(".")[0])
    momentum = getattr(part, "momentum", None)
    return float(momentum) if momentum is not None else None


def optimizer_wrong(
    optimizer: keras.optimizers.Optimizer, exact: Mapped, shape: tuple[int, ...] = (64,)
) -> Difference | None:
    """Whether the user's optimizer takes PyTorch's steps: both are given the same gradients, large and tiny ones."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape)
    gradients = [rng.normal(size=shape) * 10.0 ** rng.uniform(-9, 2, size=shape) for _ in range(4)]
    ends = []
    for candidate in (optimizer, exact.keras):
        part = candidate.optimizers[0] if isinstance(candidate, keras.optimizers.MultiOptimizer) else candidate
        fresh = exact_in_float64(part)
        variable = keras.Variable(start, dtype="float64")
        fresh.build([variable])
        for gradient in gradients:
            fresh.apply([keras.ops.convert_to_tensor(gradient, dtype="float64")], [variable])
        ends.append(numbers(variable))
    got, want = ends
    moved = float(np.abs(want - start).max())
    if ratio(float(np.abs(got - want).max()), moved) <= _LIMIT:
        return None
    named = dict(_settings(optimizer, exact.keras))
    return Difference(
        kind="optimizer-" + "-".join(named) if named else "optimizer",
        layers=("optimizer",),
        torch=", ".join(f"{k}={b}" for k, (_, b) in named.items()) or exact.name,
        keras=", ".join(f"{k}={a}" for k, (a, _) in named.items()) or f"{type(optimizer).__name__} (another rule)",
        effect=Effect.TRAINING,
        fix=f"use {exact.name}({', '.join(f'{k}={b}' for k, (_, b) in named.items())})"
        + (f": {exact.why}" if exact.why else ""),
    )


def _settings(got: Any, want: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The hyperparameters that both have and that differ, with both values."""
    ours, theirs = got.get_config(), want.get_config()
    for key in ("learning_rate", "momentum", "nesterov", "beta_1", "beta_2", "rho", "epsilon", "amsgrad", "centered"):
        a, b = ours.get(key), theirs.get(key)
        if key in ours and key in theirs and a != b and not (_close(a, b)):
            yield key, (a, b)
    for key in ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "gradient_accumulation_steps"):
        a, b = ours.get(key) or 0.0, theirs.get(key) or 0.0
        if a != b:
            yield key, (a, b)


def _close(a: Any, b: Any) -> bool:
    """Equal but for float32: a learning rate is kept as a variable."""
    return isinstance(a, float) and isinstance(b, float) and bool(np.float32(a) == np.float32(b))


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


def _range(array: Any) -> str:
    array = np.asarray(array)
    return f"values {array.min():.3g} … {array.max():.3g}"


_LIMIT = 1e-8
"""Relative error up to which two float64 computations are the same."""

_MEASURED = 1e-6
"""How exactly a momentum is read off two moves of a mean."""


def check_model(pairing: Pairing, torch_side: TorchSide, batch: Batch) -> list[Difference]:
    """What in the model itself makes training differ: its head, and what its BatchNorms keep.

    Both models compute in float64 and hold the same weights.
    """
    with torch.no_grad():
        want = _laid_out(pairing, torch_side, torch_side.forward(batch))
    inputs = pairing.keras_inputs(batch, torch_side.dtype)
    got = numbers(pairing.pick(torch_side.output)(pairing.model(inputs, training=True)))
    head = head_wrong(pairing, torch_side, got, want)
    return [*head, *statistics_wrong(pairing, torch_side, batch), *regularisers(pairing)]


def check_recipe(
    pairing: Pairing, torch_side: TorchSide, batch: Batch, theirs: KerasRecipe, loss: Mapped, optimizer: Mapped
) -> list[Difference]:
    """Everything that is wrong with a user's recipe, given the recipe that is right. In float64."""
    found: list[Difference] = []
    if theirs.prepare is not None:
        found += fed_wrongly(pairing, theirs.prepare, batch, theirs.loss or loss.keras)
    elif theirs.loss is not None:
        labels = batch.target.numpy()
        found += labels_wrong(labels, labels, theirs.loss)
    wrong = (
        loss_wrong(pairing, torch_side, batch, theirs.loss, loss) if theirs.loss is not None else None,
        optimizer_wrong(theirs.optimizer, optimizer) if theirs.optimizer is not None else None,
    )
    return [*found, *(difference for difference in wrong if difference is not None)]
