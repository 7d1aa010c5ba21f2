"""What Keras' layers take: the order of their settings, their defaults, and one form for equal values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping
from typing import Any, Final

import keras

from translator.emit.source.syntax import Code, literal
from translator.plan.calls import LayerSpec


class _Sentinel:
    """A value that is no setting's value."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


REQUIRED: Final = _Sentinel("REQUIRED")
"""The default of a setting that has none."""

ABSENT: Final = _Sentinel("ABSENT")
"""The setting of a statement that isn't there."""

FREE: Final = _Sentinel("FREE")
"""A setting whose value makes no difference: the padding of a convolution of kernel size 1."""

ALWAYS = ("epsilon", "momentum", "use_bias")
"""Settings that are always written: here PyTorch's defaults and Keras' are not the same."""

SAID = ("approximate", "axis", "interpolation")
"""Arguments of operations that are always written: one whose default differs, and those that readers look for."""

_SPATIAL = ("kernel_size", "strides", "dilation_rate", "pool_size", "padding", "cropping", "size", "output_padding")


@functools.cache
def defaults(cls: str) -> Mapping[str, Any]:
    """Every setting of a layer class of `keras.layers` with its default, in the order of its signature."""
    parameters = inspect.signature(getattr(keras.layers, cls)).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "name"]
    found = {p.name: REQUIRED if p.default is p.empty else _even(p.name, p.default) for p in named}
    return {**found, "trainable": True}


def normalised(cls: str, config: Mapping[str, Any], rank: int | None) -> dict[str, Any]:
    """The settings of a layer in one form: equal tuples as one number, the last axis as -1, with what `ALWAYS` names.

    rank: of the layer's first input, None where unknown.
    """
    known = defaults(cls)
    settings = {
        key: _wrapped(value) if isinstance(value, LayerSpec) else _even(key, value) for key, value in config.items()
    }
    if "axis" in settings and rank is not None:
        settings["axis"] = _from_end(settings["axis"], rank)
    if "pool_size" in settings and settings.get("strides") == settings["pool_size"]:
        settings["strides"] = None
    if cls.endswith(("Conv1D", "Conv2D", "Conv3D")) and settings.get("kernel_size") == 1 and "padding" in settings:
        settings["padding"] = FREE
    for key in ALWAYS:
        if key in known and known[key] is not REQUIRED:
            settings.setdefault(key, known[key])
    order = [*known, *(key for key in settings if key not in known)]
    return {key: settings[key] for key in order if key in settings}


def _wrapped(spec: LayerSpec) -> Code:
    """The layer that another wraps, as it is made."""
    first = leading(spec.cls)
    settings = normalised(spec.cls, spec.config, None)
    written = {key: literal(value) for key, value in settings.items() if not is_default(spec.cls, key, value)}
    parts = [*(written[key] for key in first if key in written)]
    parts += [f"{key}={code}" for key, code in written.items() if key not in first]
    return Code(text=f"layers.{spec.cls}({', '.join([*parts, f'name={literal(spec.name)}'])})")


def is_default(cls: str, key: str, value: Any) -> bool:
    """Whether the setting need not be written."""
    default = defaults(cls).get(key, REQUIRED)
    return (
        value is FREE
        or value is ABSENT
        or (key not in ALWAYS and default is not REQUIRED and literal(default) == literal(value))
    )


@functools.cache
def op_defaults(op: str) -> Mapping[str, Any]:
    """Every parameter of an operation of `keras.ops` with its default, in order."""
    found: Any = keras.ops
    for part in op.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        return {}
    return {
        p.name: REQUIRED if p.default is p.empty else p.default for p in inspect.signature(found).parameters.values()
    }


def op_settings(op: str, kwargs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
    """The keyword arguments of an operation that aren't at their defaults, and those to keep anyhow."""
    known = op_defaults(op)
    return {key: value for key, value in kwargs.items() if key in keep or not _equal(known.get(key, REQUIRED), value)}


def _equal(default: Any, value: Any) -> bool:
    simple = isinstance(value, str | bool | int | float | None)
    return default is not REQUIRED and simple and literal(default) == literal(value)


def leading(cls: str) -> tuple[str, ...]:
    """The settings that are written without their names: the required ones, or the first of a layer that has one."""
    required = tuple(key for key, default in defaults(cls).items() if default is REQUIRED)
    if required:
        return required
    return ("padding",) if cls.startswith("ZeroPadding") else ("pool_size",) if "Pooling" in cls else ()


def _even(key: str, value: Any) -> Any:
    if isinstance(value, list):
        value = tuple(_even("", v) for v in value)
    if key in _SPATIAL and isinstance(value, tuple) and value and all(_same(v, value[0]) for v in value):
        return _even(key, value[0])
    return value


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b


def _from_end(axis: Any, rank: int) -> Any:
    if isinstance(axis, tuple):
        return tuple(_from_end(a, rank) for a in axis)
    return -1 if axis == rank - 1 else axis
