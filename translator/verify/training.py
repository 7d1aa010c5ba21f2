"""Compare two models in training: gradients, BatchNorm statistics, weights. Numpy in, findings out.

What must be covered comes from the nn.Module: a parameter with a gradient that no Keras variable answers for is a
finding, and so is a comparison of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from translator.bindings import WeightBinding, gradients_to_torch, to_keras

NOISE = 1e-12
"""A gradient this much smaller than the largest of all is zero but for rounding (a bias before a BatchNorm)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A Keras variable and the PyTorch tensors it is made of."""

    variable: keras.Variable
    binding: WeightBinding

    @property
    def path(self) -> str:
        """Keras' name of the variable, unique in its model."""
        return str(self.variable.path)

    @property
    def tensors(self) -> tuple[str, ...]:
        """State-dict names."""
        return self.binding.tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How far one tensor of Keras is from PyTorch's.

    torch, keras: the names in both worlds. error: max|got − want| / max|want|; infinite where nothing was compared.
    size: max|want|. noise: the gradient is zero but for rounding on both sides, and `error` is relative to the largest
    of all tensors. problem: why it isn't right.
    """

    torch: str
    keras: str
    error: float
    size: float
    noise: bool = False
    problem: str = ""

    def within(self, limit: float) -> bool:
        """Whether the two agree to `limit`; never true for NaN or a problem."""
        return not self.problem and self.error <= limit


def compare_gradients(
    links: Sequence[Link],
    want: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[Deviation]:
    """One deviation for every PyTorch parameter that has a gradient.

    want: gradients by state-dict name. got: gradients by path of the Keras variable; one that is missing is none.
    shapes: of every PyTorch tensor that a link reads.
    """
    reads: dict[str, list[str]] = {}
    for link in links:
        for name in link.tensors:
            reads.setdefault(name, []).append(link.path)
    back = gradients_to_torch(((link.binding, got[link.path]) for link in links if link.path in got), shapes)
    most = max((largest(g) for g in want.values()), default=0.0)
    return [
        _gradient(name, " + ".join(reads.get(name, [])), back.get(name), gradient, most)
        for name, gradient in want.items()
    ]


def _gradient(name: str, path: str, got: np.ndarray | None, want: np.ndarray, most: float) -> Deviation:
    size = largest(want)
    if not path:
        return Deviation(torch=name, keras="", error=math.inf, size=size, problem="no Keras variable holds it")
    if got is None:
        got = np.zeros_like(want)
        if size > NOISE * most:
            return Deviation(torch=name, keras=path, error=1.0, size=size, problem="Keras computes no gradient for it")
    difference = largest(got - want)
    if not math.isfinite(difference):
        return Deviation(torch=name, keras=path, error=math.inf, size=size, problem="NaN or infinity in a gradient")
    noise = size <= NOISE * most and difference <= NOISE * most
    return Deviation(torch=name, keras=path, error=ratio(difference, most if noise else size), size=size, noise=noise)


def compare_values(
    links: Iterable[Link],
    state: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    scales: Mapping[str, float] = MappingProxyType({}),
) -> list[Deviation]:
    """One deviation for every linked variable: what PyTorch's tensors make of it, against what it is.

    state: PyTorch's tensors by name. values: of the Keras variables by path. Errors are relative to the whole PyTorch
    tensor, of which a variable may be a part. scales: for tensors that hold nothing but rounding, what their errors
    are relative to instead.
    """
    found = []
    for link in links:
        if not link.binding.pieces:
            continue
        want = to_keras(link.binding, state)
        size = max(largest(want), *(scales.get(name, largest(state[name])) for name in link.tensors))
        difference = largest(values[link.path] - want)
        problem = "" if math.isfinite(difference) else "NaN or infinity"
        found.append(
            Deviation(
                torch=" + ".join(link.tensors),
                keras=link.path,
                error=math.inf if problem else ratio(difference, size),
                size=size,
                problem=problem,
            )
        )
    return found


def largest(array: np.ndarray) -> float:
    """max|array|, 0 for none."""
    return float(np.max(np.abs(array), initial=0.0))


def ratio(difference: float, size: float) -> float:
    """difference / size; 0/0 is 0."""
    return 0.0 if difference == 0 else difference / size if size else math.inf


class VariancePrediction:
    """What a Keras BatchNormalization makes of PyTorch's running variances: the biased variance in place of the other.

    PyTorch stores the batch's variance divided by n − 1, Keras divided by n: each step takes in (n − 1)/n of what
    PyTorch takes in. Hooks on the module see n and every update; `state` is what Keras should hold.
    """

    def __init__(self, module: nn.Module) -> None:
        self.state: dict[str, np.ndarray] = {}
        self.sizes: dict[str, set[int]] = {}
        self._before: dict[int, np.ndarray] = {}
        self._handles: list[Any] = []
        for path, part in module.named_modules():
            if isinstance(part, _BatchNorm) and part.running_var is not None:
                name = f"{path}.running_var" if path else "running_var"
                self.state[name] = _array(part.running_var)
                self._handles.append(part.register_forward_pre_hook(self._enter))
                self._handles.append(part.register_forward_hook(self._leave(name)))

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, part: nn.Module, _args: Any) -> None:
        self._before[id(part)] = _array(part.running_var)

    def _leave(self, name: str) -> Any:
        def hook(part: _BatchNorm, args: tuple[Any, ...], _output: Any) -> None:
            if not part.training:
                return
            n = args[0].numel() // args[0].shape[1]
            self.sizes.setdefault(name, set()).add(n)
            new = part.momentum
            if new is None:
                assert part.num_batches_tracked is not None
                new = 1.0 / float(part.num_batches_tracked)
            taken = _array(part.running_var) - (1.0 - new) * self._before[id(part)]
            self.state[name] = (1.0 - new) * self.state[name] + taken * ((n - 1) / n)

        return hook


def _array(tensor: Any) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy().copy()
    return array
