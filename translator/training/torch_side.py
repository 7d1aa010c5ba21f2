"""One training step of a PyTorch module, with the gradients shown, on a copy of the user's module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from translator.errors import InputError
from translator.user_code import users_code
from translator.verify.precision import asks_for_float64, widen
from translator.verify.torch_record import tensors_in

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchRecipe:
    """How a PyTorch model is trained.

    loss: a module called with (output, target). optimizer: makes one for a module. scheduler: makes one for that
    optimizer; it moves every `steps_per_epoch` steps. epochs: how many values to write down of a scheduler that can
    only be tabulated.
    """

    loss: nn.Module
    optimizer: Callable[[nn.Module], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    steps_per_epoch: int = 1
    epochs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch as PyTorch takes it: the module's arguments, and the target of the loss."""

    args: tuple[Any, ...]
    target: torch.Tensor
    kwargs: Mapping[str, Any]


class TorchSide:
    """A copy of a module in training, step by step. `output`: the number of the output that the loss looks at."""

    def __init__(self, module: nn.Module, recipe: TorchRecipe, *, dtype: torch.dtype, output: int = 0) -> None:
        self.module = copy.deepcopy(module).train()
        self.dtype, self.output = dtype, output
        silence(self.module)
        if dtype is torch.float64:
            widen(self.module)
        self.loss = copy.deepcopy(recipe.loss).to(dtype)
        self.optimizer = recipe.optimizer(self.module)
        self.scheduler = recipe.scheduler(self.optimizer) if recipe.scheduler else None
        self.steps_per_epoch, self.steps = recipe.steps_per_epoch, 0

    def gradients(self, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
        """The loss, and the gradient of every parameter that has one, by its first name. BatchNorms take it in."""
        self.module.zero_grad()
        loss = self.loss(self.forward(batch), in_dtype(batch.target, self.dtype)).sum()
        loss.backward()
        return float(loss.detach()), {
            name: p.grad.detach().numpy() for name, p in self.module.named_parameters() if p.grad is not None
        }

    def forward(self, batch: Batch) -> torch.Tensor:
        """The output that the loss looks at."""
        args = [in_dtype(a, self.dtype) for a in batch.args]
        kwargs = {name: in_dtype(a, self.dtype) for name, a in batch.kwargs.items()}
        with asks_for_float64() if self.dtype is torch.float64 else nullcontext():
            return tensors_in(self.module(*args, **kwargs))[self.output]

    def move(self) -> None:
        """The optimizer's step, and the scheduler's at the end of an epoch."""
        self.optimizer.step()
        self.steps += 1
        if self.scheduler is not None and self.steps % self.steps_per_epoch == 0:
            self.scheduler.step()

    def state(self) -> dict[str, np.ndarray]:
        """Every parameter and buffer by its first name; the arrays are the live ones."""
        found: dict[str, np.ndarray] = {}
        seen: set[int] = set()
        for table in (self.module.named_parameters(), self.module.named_buffers()):
            for name, tensor in table:
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[name] = tensor.detach().numpy()
        return found


def outputs_in_training(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """What a module gives in training, from a copy; the same twice, or it is random. Raises InputError where it is."""
    trained = copy.deepcopy(module).train()
    silence(trained)
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if all(leaf.ndim and leaf.shape[0] == 1 for leaf in leaves):  # a BatchNorm may need more than one example
        args, kwargs = pytree.tree_map_only(torch.Tensor, lambda x: torch.cat([x, x]), (args, kwargs))
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    found = []
    for seed in (0, 1):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with users_code("the PyTorch model raised in training:"):
                copies = pytree.tree_map_only(torch.Tensor, torch.clone, (args, dict(kwargs)))
                outputs = trained(*copies[0], **copies[1])
            found.append([tensor.clone() for tensor in tensors_in(outputs)])
        trained.load_state_dict(before)
    for first, second in zip(*found, strict=True):
        if not torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise InputError(
                "the PyTorch model gives two results for one input in training: something in it is random",
                fix="switch it off, e.g. a functional dropout whose rate is no module's",
            )
    return found[0]


def in_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A copy of a tensor, which a module may change in place: a floating-point one in that dtype. Else the value."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(dtype, copy=True) if value.is_floating_point() else value.clone()


def silence(module: nn.Module) -> list[str]:
    """Switch off everything random in a module; the paths of what was switched off.

    Dropout in all its forms, stochastic depth, and the dropout inside attention and recurrent layers.
    """
    found = []
    for path, part in module.named_modules():
        for attribute in _CHANCES.get(type(part).__name__, ()):
            if getattr(part, attribute, 0):
                setattr(part, attribute, 0.0)
                found.append(path)
    return found


_CHANCES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "Dropout",
            "Dropout1d",
            "Dropout2d",
            "Dropout3d",
            "AlphaDropout",
            "FeatureAlphaDropout",
            "StochasticDepth",
            "DropBlock2d",
            "DropBlock3d",
        ),
        ("p",),
    ),
    "DropPath": ("drop_prob",),
    "PatchDropout": ("prob",),
    "MultiheadAttention": ("dropout",),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), ("dropout",)),
}
