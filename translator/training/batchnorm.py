"""The same Keras model with PyTorch's BatchNorm statistics, and back with Keras' own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import keras

from translator.errors import InputError
from translator.training.registered import ExactBatchNormalization

if TYPE_CHECKING:
    from torch import nn

    from translator.bindings import WeightBinding
    from translator.engines.result import EngineResult


def with_exact_batchnorm(model: keras.Model, *, cumulative: Collection[str] = ()) -> keras.Model:
    """A copy of a Functional or Sequential model whose BatchNormalizations store the unbiased variance, like PyTorch.

    The copy has the same names, weights and outputs, and isn't compiled; a file of it needs
    `translator.training.registered` to load.
    cumulative: names of the layers that average over all batches (`momentum=None` in PyTorch).
    """

    def exact(config: dict[str, Any]) -> dict[str, Any]:
        momentum = None if config["name"] in cumulative else config["momentum"]
        settings = {k: v for k, v in config.items() if k not in ("renorm", "renorm_clipping", "renorm_momentum")}
        return keras.saving.serialize_keras_object(  # type: ignore[no-any-return]
            ExactBatchNormalization.from_config({**settings, "momentum": momentum})
        )

    return _rebuilt(model, "BatchNormalization", exact)


def with_native_batchnorm(model: keras.Model) -> keras.Model:
    """A copy with Keras' own BatchNormalization in place of the exact one: it loads anywhere. Inference is the same.

    It isn't compiled: the optimizer may be of a registered class, too.
    """

    def native(config: dict[str, Any]) -> dict[str, Any]:
        if config["momentum"] is None:
            raise ValueError(f"{config['name']}: keras.layers.BatchNormalization has no cumulative average")
        return keras.saving.serialize_keras_object(  # type: ignore[no-any-return]
            keras.layers.BatchNormalization.from_config(config)
        )

    return _rebuilt(model, "ExactBatchNormalization", native)


def with_exact_result(result: EngineResult, module: nn.Module) -> EngineResult:
    """What an engine made of `module`, its model with PyTorch's BatchNorm statistics; for `convert --exact-batchnorm`.

    Raises InputError where the engine gives no weight bindings.
    """
    from translator.emit.weights import set_weights

    if not result.bindings:
        raise InputError("this engine gives no weight bindings", fix="--exact-batchnorm needs --engine native")
    model = with_exact_batchnorm(result.model, cumulative=cumulative_layers(module, result.bindings))
    return replace(
        result,
        model=model,
        load_state=partial(set_weights, model, result.bindings),
        notes=(*result.notes, *([_NEEDS] if model is not result.model else [])),
    )


_NEEDS = "BatchNormalization is a registered class: `import translator.training.registered` before the file is loaded"


def cumulative_layers(module: nn.Module, bindings: Iterable[tuple[str, WeightBinding]]) -> set[str]:
    """Names of the Keras layers whose BatchNorm averages over all batches: `momentum=None` in PyTorch."""
    names = {
        f"{path}.running_mean"
        for path, part in module.named_modules()
        if getattr(part, "running_mean", None) is not None and getattr(part, "momentum", 0.1) is None
    }
    return {path.rpartition("/")[2] for path, binding in bindings if names.intersection(binding.tensors)}


def _rebuilt(model: keras.Model, cls: str, replace: Any) -> keras.Model:
    """The model from its config, each layer of class `cls` replaced, with the weights it has."""
    if not any(type(layer).__name__ == cls for layer in model._flatten_layers(include_self=False, recursive=True)):
        return model
    config = _walk(keras.saving.serialize_keras_object(model), cls, replace)
    config.pop("compile_config", None)
    copy = keras.saving.deserialize_keras_object(config)
    values = {v.path: v for v in model.variables}
    for variable in copy.variables:
        if variable.path in values:  # a counter of batches is new
            variable.assign(values[variable.path])
    return copy


def _walk(value: Any, cls: str, replace: Any) -> Any:
    if isinstance(value, dict):
        if value.get("class_name") == cls and isinstance(value.get("config"), dict):
            made = replace(value["config"])
            return {**{k: v for k, v in value.items() if k not in made}, **made}
        return {key: _walk(item, cls, replace) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, cls, replace) for item in value]
    return value
