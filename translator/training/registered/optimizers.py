"""PyTorch's optimizers as Keras optimizers, for the settings where Keras' own compute something else.

Keras' SGD keeps `momentum·v − lr·g`, PyTorch's `momentum·v + g` and multiplies by the rate at the end: the same only
while the rate stands still. Keras' Adam adds epsilon before the bias correction, PyTorch's after it; Keras' RMSprop
adds it under the root, PyTorch's outside. Keras' `weight_decay` is decoupled everywhere, PyTorch's only in AdamW.

`weight_decay` here is PyTorch's. `momentum` and `beta_1` may be schedules (OneCycleLR cycles them).
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops
from keras.optimizers import schedules

register = keras.saving.register_keras_serializable(package="translator")

Hyper = Any
"""A number or a `keras.optimizers.schedules.LearningRateSchedule`."""


class _TorchOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """What the four share: PyTorch's weight decay, `maximize`, dense gradients, schedules for hyperparameters."""

    _hypers: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: Hyper,
        weight_decay: float = 0.0,
        maximize: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=float(weight_decay), name=name, **kwargs)
        self.maximize = maximize

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: `update_step` decays, where PyTorch does."""

    def _hyper(self, value: Hyper, dtype: Any) -> Any:
        """The value of a hyperparameter at this step, a number where it is constant."""
        return ops.cast(value(self._iterations), dtype) if callable(value) else value

    def _gradient(self, gradient: Any, variable: Any, *, coupled: bool = True) -> Any:
        """The gradient PyTorch's rule works on: dense, negated to maximise, with the L2 term."""
        if hasattr(gradient, "dense_shape"):  # TensorFlow's IndexedSlices, from an Embedding
            gradient = ops.add(gradient, ops.zeros_like(variable))
        gradient = ops.cast(gradient, variable.dtype)
        if self.maximize:
            gradient = -gradient
        if coupled and self.weight_decay and self._use_weight_decay(variable):
            gradient = gradient + self.weight_decay * ops.convert_to_tensor(variable)
        return gradient

    def _slot(self, slots: list[Any], variable: Any) -> Any:
        return slots[self._get_variable_index(variable)]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = {**super().get_config(), "maximize": self.maximize}
        for name in self._hypers:
            value = getattr(self, name)
            config[name] = schedules.serialize(value) if callable(value) else value
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The optimizer of that config, its schedules restored."""
        config = dict(config)
        for name in cls._hypers:
            if isinstance(config.get(name), dict):
                config[name] = schedules.deserialize(config[name], custom_objects=custom_objects)
        return super().from_config(config, custom_objects=custom_objects)


@register
class TorchSGD(_TorchOptimizer):
    """`torch.optim.SGD`: `v = momentum·v + (1 − dampening)·g`; `w −= lr·v`, or `lr·(g + momentum·v)` with Nesterov."""

    _hypers = ("momentum",)

    def __init__(
        self,
        learning_rate: Hyper = 0.001,
        momentum: Hyper = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, maximize=maximize, name=name, **kwargs)
        if nesterov and (dampening or not momentum):
            raise ValueError("Nesterov momentum needs a momentum and no dampening")
        self.momentum, self.dampening, self.nesterov = _hyper(momentum), float(dampening), nesterov

    def build(self, variables: list[Any]) -> None:
        """One momentum buffer per variable, if there is momentum."""
        if self.built:
            return
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum") if self.momentum else []

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = self._gradient(gradient, variable)
        if self.momentum:
            buffer = self._slot(self._momentums, variable)
            momentum = self._hyper(self.momentum, variable.dtype)
            share: Any = 1.0
            if self.dampening:  # PyTorch doesn't damp the first gradient
                share = 1.0 - self.dampening * ops.cast(self._iterations > 0, variable.dtype)
            self.assign(buffer, momentum * ops.convert_to_tensor(buffer) + share * gradient)
            held = ops.convert_to_tensor(buffer)
            gradient = gradient + momentum * held if self.nesterov else held
        self.assign_sub(variable, rate * gradient)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "dampening": self.dampening, "nesterov": self.nesterov}


@register
class TorchAdam(_TorchOptimizer):
    """`torch.optim.Adam`: epsilon is added after the bias correction, weight decay is L2."""

    _hypers = ("beta_1",)
    _coupled = True

    def __init__(
        self,
        learning_rate: Hyper = 0.001,
        beta_1: Hyper = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, maximize=maximize, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = _hyper(beta_1), float(beta_2), float(epsilon)
        self.amsgrad = amsgrad

    def build(self, variables: list[Any]) -> None:
        """First and second moments, and the largest second moment for AMSGrad."""
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])
        self._velocity_hats = self.add_optimizer_variables(variables, "velocity_hat") if self.amsgrad else []

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable."""
        dtype = variable.dtype
        rate = ops.cast(learning_rate, dtype)
        step = ops.cast(self._iterations + 1, dtype)
        beta_1 = self._hyper(self.beta_1, dtype)
        gradient = self._gradient(gradient, variable, coupled=self._coupled)
        if not self._coupled and self.weight_decay and self._use_weight_decay(variable):
            self.assign_sub(variable, ops.convert_to_tensor(variable) * (rate * self.weight_decay))
        m, v = self._slot(self._momentums, variable), self._slot(self._velocities, variable)
        old_m = ops.convert_to_tensor(m)
        self.assign(m, old_m + (1.0 - beta_1) * (gradient - old_m))
        self.assign(v, self.beta_2 * ops.convert_to_tensor(v) + (1.0 - self.beta_2) * ops.square(gradient))
        second = ops.convert_to_tensor(v)
        if self.amsgrad:
            hat = self._slot(self._velocity_hats, variable)
            self.assign(hat, ops.maximum(ops.convert_to_tensor(hat), second))
            second = ops.convert_to_tensor(hat)
        root = ops.sqrt(second) / ops.sqrt(_one_minus_power(self.beta_2, step)) + self.epsilon
        self.assign_sub(variable, (rate / _one_minus_power(beta_1, step)) * ops.convert_to_tensor(m) / root)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "beta_2": self.beta_2, "epsilon": self.epsilon, "amsgrad": self.amsgrad}


@register
class TorchAdamW(TorchAdam):
    """`torch.optim.AdamW`: the decay is decoupled, `w −= lr·weight_decay·w` before the step."""

    _coupled = False

    def __init__(self, learning_rate: Hyper = 0.001, weight_decay: float = 0.01, **kwargs: Any) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)


@register
class TorchRMSprop(_TorchOptimizer):
    """`torch.optim.RMSprop`: epsilon is added to the root; the momentum buffer is free of the learning rate."""

    _hypers = ("momentum",)

    def __init__(
        self,
        learning_rate: Hyper = 0.01,
        rho: float = 0.99,
        momentum: Hyper = 0.0,
        epsilon: float = 1e-8,
        centered: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, maximize=maximize, name=name, **kwargs)
        self.rho, self.momentum, self.epsilon = float(rho), _hyper(momentum), float(epsilon)
        self.centered = centered

    def build(self, variables: list[Any]) -> None:
        """The average square, and the average gradient and the momentum where they are asked for."""
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._momentums = self.add_optimizer_variables(variables, "momentum") if self.momentum else []
        self._averages = self.add_optimizer_variables(variables, "average_gradient") if self.centered else []

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = self._gradient(gradient, variable)
        velocity = self._slot(self._velocities, variable)
        self.assign(velocity, self.rho * ops.convert_to_tensor(velocity) + (1.0 - self.rho) * ops.square(gradient))
        second = ops.convert_to_tensor(velocity)
        if self.centered:
            average = self._slot(self._averages, variable)
            old = ops.convert_to_tensor(average)
            self.assign(average, old + (1.0 - self.rho) * (gradient - old))
            second = second - ops.square(ops.convert_to_tensor(average))
        step = gradient / (ops.sqrt(second) + self.epsilon)
        if self.momentum:
            buffer = self._slot(self._momentums, variable)
            momentum = self._hyper(self.momentum, variable.dtype)
            self.assign(buffer, momentum * ops.convert_to_tensor(buffer) + step)
            step = ops.convert_to_tensor(buffer)
        self.assign_sub(variable, rate * step)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon, "centered": self.centered}


def _hyper(value: Hyper) -> Hyper:
    """A plain float (numpy's would take a tensor for an array), or the schedule."""
    return value if callable(value) else float(value)


def _one_minus_power(beta: Any, step: Any) -> Any:
    """1 − beta^step without the cancellation that costs Keras' Adam 5 digits of float32 in its first steps."""
    if isinstance(beta, (int, float)):
        return -ops.expm1(step * math.log(beta)) if beta > 0 else ops.ones_like(step)
    return 1.0 - ops.power(beta, step)
