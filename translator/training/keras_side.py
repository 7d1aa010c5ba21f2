"""One training step of a Keras model, with the gradients shown: on TensorFlow, JAX and PyTorch as Keras' backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step found before it moved the weights. gradients: by path of the variable, those that there are."""

    loss: float
    gradients: Mapping[str, np.ndarray]


def numbers(value: Any) -> np.ndarray:
    """A variable or a tensor as an array of its own."""
    if isinstance(value, keras.Variable):
        value = value.value
    if keras.config.backend() == "torch":
        value = keras.ops.convert_to_numpy(value)
    return np.array(np.asarray(value))  # not convert_to_numpy: numpy 2 warns of how it asks TensorFlow's variables


class KerasSide:
    """A Keras model in training, step by step.

    loss: called with (targets, outputs). pick: takes the tensor that the loss looks at out of the model's outputs.
    optimizer: None computes gradients only. The step is compiled at first use: settings changed later have no effect.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Callable[[Any, Any], Any],
        optimizer: keras.optimizers.Optimizer | None = None,
        pick: Callable[[Any], Any] = lambda outputs: outputs,
    ) -> None:
        self.model, self.loss, self.optimizer, self.pick = model, loss, optimizer, pick
        self.variables = list(model.trainable_variables)
        if optimizer is not None:
            optimizer.build(self.variables)
        self._step = _STEPS[keras.config.backend()](self)

    def step(self, inputs: Any, target: Any) -> Step:
        """Forward, backward, and the optimizer's step if there is an optimizer. Arrays in the model's dtype."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*received `from_logits=True`.*")  # parity names that itself
            loss, gradients = self._step(inputs, target)
        named = zip(self.variables, gradients, strict=True)
        return Step(
            loss=float(numbers(loss)),
            gradients={v.path: numbers(g) for v, g in named if g is not None},
        )

    def values(self) -> dict[str, np.ndarray]:
        """Every variable of the model by path."""
        return {v.path: numbers(v) for v in self.model.variables}

    def objective(self, inputs: Any, target: Any, outputs: Any = None) -> Any:
        """The scalar that is minimised: the loss of the batch and what the layers' regularisers add."""
        if outputs is None:
            outputs = self.model(inputs, training=True)
        value = keras.ops.sum(self.loss(target, self.pick(outputs)))
        for extra in self.model.losses:
            value = value + keras.ops.cast(extra, value.dtype)
        return value


Stepper = Callable[[Any, Any], tuple[Any, list[Any]]]


def _tensorflow(side: KerasSide) -> Stepper:
    import tensorflow as tf

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(inputs: Any, target: Any) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            loss = side.objective(inputs, target)
        gradients = tape.gradient(loss, [v.value for v in side.variables])
        if side.optimizer is not None:
            have = [(g, v) for g, v in zip(gradients, side.variables, strict=True) if g is not None]
            side.optimizer.apply([g for g, _ in have], [v for _, v in have])
        return loss, [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    return lambda inputs, target: step(
        keras.tree.map_structure(tf.convert_to_tensor, inputs), tf.convert_to_tensor(target)
    )


def _jax(side: KerasSide) -> Stepper:
    import jax

    model, optimizer = side.model, side.optimizer

    def objective(trained: Any, held: Any, inputs: Any, target: Any) -> tuple[Any, Any]:
        outputs, held, losses = model.stateless_call(trained, held, inputs, training=True, return_losses=True)
        value = keras.ops.sum(side.loss(target, side.pick(outputs)))
        for extra in losses:
            value = value + keras.ops.cast(extra, value.dtype)
        return value, held

    def step(trained: Any, held: Any, state: Any, inputs: Any, target: Any) -> Any:
        (loss, held), gradients = jax.value_and_grad(objective, has_aux=True)(trained, held, inputs, target)
        if optimizer is not None:
            trained, state = optimizer.stateless_apply(state, gradients, trained)
        return loss, gradients, trained, held, state

    compiled = jax.jit(step)

    def run(inputs: Any, target: Any) -> tuple[Any, list[Any]]:
        groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables if optimizer else [])
        loss, gradients, *new = compiled(*([v.value for v in group] for group in groups), inputs, target)
        for group, values in zip(groups, new, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return loss, list(gradients)

    return run


def _torch(side: KerasSide) -> Stepper:
    def step(inputs: Any, target: Any) -> tuple[Any, list[Any]]:
        import torch

        side.model.zero_grad()
        loss = side.objective(
            keras.tree.map_structure(keras.ops.convert_to_tensor, inputs), keras.ops.convert_to_tensor(target)
        )
        loss.backward()
        gradients = [None if v.value.grad is None else v.value.grad.detach().clone() for v in side.variables]
        if side.optimizer is not None:
            have = [(g, v) for g, v in zip(gradients, side.variables, strict=True) if g is not None]
            with torch.no_grad():
                side.optimizer.apply([g for g, _ in have], [v for _, v in have])
        return loss.detach(), gradients

    return step


_STEPS: Mapping[str, Callable[[KerasSide], Stepper]] = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
