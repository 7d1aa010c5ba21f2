"""Random batches for any model: inputs like its example, and targets that fit its output and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from translator.errors import InputError
from translator.training.torch_side import Batch

MakeTarget = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Makes a target for an output of that shape."""


def random_batches(
    example: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    output: torch.Tensor,
    loss: nn.Module,
    *,
    size: int,
    count: int,
    seed: int,
) -> Iterator[Batch]:
    """`count` batches of `size` rows, from `seed` alone.

    example, kwargs: arguments the module runs on, the batch first in every tensor. Float inputs are normal numbers,
    others are drawn from the example's own values. output: what the loss will look at, for its shape.
    """
    target = target_maker(loss)
    shape = (size, *output.shape[1:])
    for number in range(count):
        generator = torch.Generator().manual_seed((seed << 32) + number)
        args, more = pytree.tree_map(partial(_like, size, generator), (tuple(example), dict(kwargs)))
        yield Batch(args=args, kwargs=more, target=target(output.new_zeros(shape), generator))


def _like(size: int, generator: torch.Generator, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.ndim == 0:
        raise InputError(
            "an example input without a batch dimension can't be drawn anew", fix="pass batches of your own"
        )
    shape = (size, *value.shape[1:])
    if value.is_floating_point():
        return torch.randn(shape, generator=generator, dtype=torch.float32)
    chosen = torch.randint(0, value.numel(), shape, generator=generator)
    return value.reshape(-1)[chosen]


def target_maker(loss: nn.Module) -> MakeTarget:
    """How targets of that loss are drawn. Raises InputError for a loss that isn't known."""
    makers: Mapping[str, MakeTarget] = {
        "CrossEntropyLoss": _classes,
        "NLLLoss": _classes,
        "BCELoss": _shares,
        "BCEWithLogitsLoss": _shares,
        **dict.fromkeys(("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss"), _numbers),
    }
    try:
        return makers[type(loss).__name__]
    except KeyError:
        raise InputError(
            f"{type(loss).__name__}: what its targets look like isn't known", fix="pass batches of your own"
        ) from None


def default_loss(output: torch.Tensor) -> nn.Module:
    """Cross entropy where the output can be logits of classes (N, K, …), else the mean squared error."""
    return nn.CrossEntropyLoss() if output.ndim >= 2 and output.shape[1] > 1 else nn.MSELoss()


def _classes(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, output.shape[1], (output.shape[0], *output.shape[2:]), generator=generator)


def _shares(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, output.shape, generator=generator).float()


def _numbers(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(output.shape, generator=generator)
