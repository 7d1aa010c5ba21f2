"""The weights a proof runs on, and how both models get their own back, bit for bit.

A fresh model hides much: with a BatchNorm's mean 0, variance 1, scale 1 and shift 0 nothing shows that two of them were
exchanged, and a head of zeros puts out zeros whatever comes in. So constant parameters are made random for the proof.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
import numpy as np
import torch
from torch import nn

from translator.claims import Claims
from translator.errors import InternalError
from translator.verify.keras_replay import to_numpy

LoadState = Callable[[Mapping[str, np.ndarray]], None]


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under each of its names, buffers outside the state dict included."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def state_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """All tensors by name as arrays, sharing memory where they can; narrow floats as float32."""
    arrays = {}
    for name, tensor in named_tensors(module).items():
        value = tensor.detach().cpu()
        arrays[name] = (value.float() if value.dtype in (torch.float16, torch.bfloat16) else value).numpy()
    return arrays


def sums(claims: Claims) -> list[tuple[str, ...]]:
    """The groups of tensors that Keras holds as their sum."""
    return [c.tensors for c in claims.parameters if c.how == "sum"]


def constant_names(module: nn.Module, claims: Claims) -> list[str]:
    """Tensors that say nothing because all their elements are equal; only those that Keras is claimed to hold."""
    held = {name for c in claims.parameters for name in c.tensors}
    found: dict[int, str] = {}
    for name, tensor in named_tensors(module).items():
        if name in held and tensor.is_floating_point() and tensor.numel():
            flat = tensor.detach().flatten()
            if bool((flat == flat[0]).all()):
                found.setdefault(id(tensor), name)
    return list(found.values())


@contextmanager
def randomised(
    module: nn.Module, model: keras.Model, load: LoadState, names: Sequence[str], claims: Claims, seed: int
) -> Iterator[None]:
    """Give the named tensors random values on both sides while the block runs.

    Tensors whose sum Keras holds are rounded so that the float32 sum is exact. `load` moves PyTorch's tensors to Keras.
    """
    tensors = named_tensors(module)
    summed = [name for group in sums(claims) for name in group]
    own = {name: tensors[name].detach().clone() for name in dict.fromkeys([*names, *summed])}
    with _kept(model):
        try:
            for number, name in enumerate(names):
                _fill(tensors[name], np.random.default_rng([seed, number]))
            for name in summed:
                tensors[name].data.copy_((tensors[name].detach() * 4096).round() / 4096)
            load(state_arrays(module))
            yield
        finally:
            for name, value in own.items():
                tensors[name].data.copy_(value)


@contextmanager
def merged_sums(module: nn.Module, claims: Claims) -> Iterator[None]:
    """Let PyTorch compute with the float32 sum that Keras holds: the first tensor of each group gets it, the others 0.

    The ledger says whether Keras holds exactly that sum; a float64 run can then be compared without its rounding.
    """
    tensors = named_tensors(module)
    groups = [g for g in sums(claims) if all(n in tensors for n in g) and len({tensors[n].shape for n in g}) == 1]
    own = {name: tensors[name].detach().clone() for group in groups for name in group}
    try:
        for first, *others in groups:
            for name in others:
                tensors[first].data.add_(tensors[name].detach())
                tensors[name].data.zero_()
        yield
    finally:
        for name, value in own.items():
            tensors[name].data.copy_(value)


def _fill(tensor: torch.Tensor, rng: np.random.Generator) -> None:
    """Random values around the constant; sane for a deep net, positive where it was, all float32 numbers."""
    value = float(tensor.detach().flatten()[0])
    shape = tuple(tensor.shape)
    if value:
        numbers = rng.uniform(0.5, 1.5, shape) * np.sign(value) * max(abs(value), 0.1)
    elif len(shape) > 1:
        numbers = rng.standard_normal(shape) / max(tensor.numel() / shape[0], 1) ** 0.5
    else:
        numbers = rng.standard_normal(shape) * 0.1
    tensor.data.copy_(torch.from_numpy(np.asarray(numbers, dtype=np.float32)))


@contextmanager
def _kept(model: keras.Model) -> Iterator[None]:
    """Keep the Keras variables in a scratch file (they may be gigabytes) and put them back at the end."""
    variables = list(model.weights)
    with tempfile.TemporaryFile() as scratch:
        for variable in variables:
            scratch.write(to_numpy(variable.value).tobytes())
        try:
            yield
        finally:
            scratch.seek(0)
            for variable in variables:
                now = to_numpy(variable.value)
                stored = scratch.read(now.nbytes)
                if now.tobytes() != stored:
                    variable.assign(np.frombuffer(bytearray(stored), dtype=now.dtype).reshape(now.shape))
                if to_numpy(variable.value).tobytes() != stored:
                    raise InternalError(f"the Keras variable {variable.path} did not get its value back")
