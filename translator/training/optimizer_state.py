"""An optimizer's state in both worlds: compared, or carried over so that training goes on in the other framework."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import torch
from torch import nn

from translator.bindings import to_keras, to_torch
from translator.errors import InputError
from translator.training.keras_side import numbers
from translator.verify.training import Deviation, Link, largest, ratio

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One state variable of Keras. key: PyTorch's name for it. scale: Keras' value is this many times PyTorch's."""

    key: str
    variable: keras.Variable
    scale: float = 1.0


def slots(optimizer: keras.optimizers.Optimizer) -> dict[str, list[Slot]]:
    """The state variables of each trained variable, by its path."""
    found: dict[str, list[Slot]] = {}
    for part in _parts(optimizer):
        for key, attribute, power in _SLOTS.get(type(part).__name__, ()):
            held = getattr(part, attribute, None)
            if not held:
                continue
            scale = _rate(part) * power if power else 1.0
            for variable, slot in zip(part._trainable_variables, held, strict=True):
                found.setdefault(variable.path, []).append(Slot(key=key, variable=slot, scale=scale))
    return found


def compare_state(
    links: Sequence[Link],
    module: nn.Module,
    torch_optimizer: Optimizer,
    keras_optimizer: keras.optimizers.Optimizer,
    quiet: Collection[str] = (),
) -> list[Deviation]:
    """One deviation for every state variable of Keras that PyTorch has, too. quiet: as in `compare_values`."""
    state = slots_by_name(module, torch_optimizer)
    held = slots(keras_optimizer)
    sizes: dict[str, float] = {}
    for own in state.values():
        for key, value in own.items():
            sizes[key] = max(largest(value), sizes.get(key, 0.0))
    found = []
    for link in links:
        for slot in held.get(link.path, []):
            parts = {name: state[name][slot.key] for name in link.tensors if slot.key in state.get(name, {})}
            if len(parts) != len(link.tensors) or link.binding.join == "sum":
                continue
            noise = all(name in quiet for name in link.tensors)
            size = sizes[slot.key] if noise else max(map(largest, parts.values()))
            difference = largest(numbers(slot.variable) - to_keras(link.binding, parts) * slot.scale)
            found.append(
                Deviation(
                    torch=f"{' + '.join(link.tensors)}: {slot.key}",
                    keras=slot.variable.path,
                    error=ratio(difference, size * abs(slot.scale)),
                    size=size,
                    noise=noise,
                    problem="" if np.isfinite(difference) else "NaN or infinity",
                )
            )
    return found


def state_to_keras(
    links: Sequence[Link],
    module: nn.Module,
    torch_optimizer: Optimizer,
    keras_optimizer: keras.optimizers.Optimizer,
    *,
    steps: int,
) -> None:
    """Give a built Keras optimizer the state of a PyTorch optimizer that has taken `steps` steps.

    Raises InputError where a variable is the sum of several parameters: its state is not determined.
    """
    state = slots_by_name(module, torch_optimizer)
    for part in (keras_optimizer, *_parts(keras_optimizer)):
        part._iterations.assign(steps)
    held = slots(keras_optimizer)
    for link in links:
        for slot in held.get(link.path, []):
            parts = {name: state[name][slot.key] for name in link.tensors if slot.key in state.get(name, {})}
            if len(parts) != len(link.tensors):
                continue
            if link.binding.join == "sum":
                raise InputError(
                    f"{link.path} is the sum of {' and '.join(link.tensors)}: its state can't be carried over"
                )
            slot.variable.assign(np.ascontiguousarray(to_keras(link.binding, parts) * slot.scale))


def state_to_torch(
    links: Sequence[Link], module: nn.Module, torch_optimizer: Optimizer, keras_optimizer: keras.optimizers.Optimizer
) -> int:
    """Give a PyTorch optimizer the state of a Keras optimizer; how many steps that one has taken.

    Raises InputError where a variable is the sum of several parameters.
    """
    held, by_key = slots(keras_optimizer), dict[str, list[tuple[Any, np.ndarray]]]()
    parameters = dict(module.named_parameters())
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters(remove_duplicate=False)}
    for link in links:
        for slot in held.get(link.path, []):
            if link.binding.join == "sum":
                raise InputError(
                    f"{link.path} is the sum of {' and '.join(link.tensors)}: its state can't be carried over"
                )
            if not slot.scale:
                raise InputError("the learning rate is 0: Keras' momentum holds nothing", fix="use registered.TorchSGD")
            value = numbers(slot.variable) / slot.scale
            by_key.setdefault(slot.key, []).append((link.binding, value))
    steps = int(max(part.iterations for part in (keras_optimizer, *_parts(keras_optimizer))))
    for key, pairs in by_key.items():
        for name, value in to_torch(pairs, shapes).items():
            tensor = torch.from_numpy(np.ascontiguousarray(value)).to(parameters[name].dtype)
            torch_optimizer.state[parameters[name]][key] = tensor
    if type(torch_optimizer).__name__ != "SGD":
        for parameter in parameters.values():
            if parameter in torch_optimizer.state:
                torch_optimizer.state[parameter]["step"] = torch.tensor(float(steps))
    return steps


def slots_by_name(module: nn.Module, optimizer: Optimizer) -> dict[str, Mapping[str, np.ndarray]]:
    """What a PyTorch optimizer remembers of each parameter that it has moved."""
    return {
        name: {
            key: value.detach().numpy()
            for key, value in optimizer.state[parameter].items()
            if isinstance(value, torch.Tensor) and key != "step"
        }
        for name, parameter in module.named_parameters()
        if parameter in optimizer.state
    }


def _parts(optimizer: keras.optimizers.Optimizer) -> Iterator[keras.optimizers.Optimizer]:
    """The optimizers that hold state: those inside a MultiOptimizer, or the optimizer itself."""
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        yield from (part for part in optimizer.optimizers if part.built)
    else:
        yield optimizer


def _rate(optimizer: keras.optimizers.Optimizer) -> float:
    return float(numbers(optimizer.learning_rate))


_ADAM = (
    ("exp_avg", "_momentums", 0),
    ("exp_avg_sq", "_velocities", 0),
    ("max_exp_avg_sq", "_velocity_hats", 0),
)
_SLOTS: Mapping[str, tuple[tuple[str, str, int], ...]] = {
    "SGD": (("momentum_buffer", "momentums", -1),),
    "TorchSGD": (("momentum_buffer", "_momentums", 0),),
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "TorchAdam": _ADAM,
    "TorchAdamW": _ADAM,
    "RMSprop": (
        ("square_avg", "_velocities", 0),
        ("momentum_buffer", "_momentums", 1),
        ("grad_avg", "_average_gradients", 0),
    ),
    "TorchRMSprop": (
        ("square_avg", "_velocities", 0),
        ("momentum_buffer", "_momentums", 0),
        ("grad_avg", "_averages", 0),
    ),
}
"""Class → (PyTorch's name, Keras' attribute, the power of ±learning rate that Keras' value carries)."""
