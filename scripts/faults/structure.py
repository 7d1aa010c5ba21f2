"""Faults in the layers and in what they read: the weights are right, the function is not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from scripts.faults.planting import (
    Config,
    Layer,
    Planted,
    Right,
    fault,
    insert_behind,
    layer_of,
    layers_of,
    pick,
    readers,
    rebuilt,
    redirect,
    remove,
    sources,
)

_ACTIVATIONS = ("ReLU", "Activation")
_CONVS = ("Conv2D", "DepthwiseConv2D")


def _edited(
    right: Right, rng: np.random.Generator, candidates: list[Layer], edit: Callable[[Config, Layer], Any], *also: str
) -> Planted | None:
    chosen = pick(rng, candidates)
    if chosen is None:
        return None
    name = chosen["name"]
    model = rebuilt(right, lambda config: edit(config, layer_of(config, name)))
    return Planted(model=model, layers=frozenset({right.home[name], *also}), where=name)


def _config(right: Right) -> Config:
    return right.model.get_config()


def _set(**settings: Any) -> Callable[[Config, Layer], None]:
    return lambda _, layer: layer["config"].update(settings)


def _of_class(right: Right, *classes: str) -> list[Layer]:
    return [layer for layer in layers_of(_config(right), *classes) if right.home.get(layer["name"])]


@fault("BN: epsilon 1e-3", "structure")
def epsilon(right: Right, rng: np.random.Generator) -> Planted | None:
    """Keras' default."""
    return _edited(right, rng, _of_class(right, "BatchNormalization"), _set(epsilon=1e-3))


@fault("BN: epsilon 2e-5", "structure")
def epsilon_doubled(right: Right, rng: np.random.Generator) -> Planted | None:
    """A small one."""
    return _edited(right, rng, _of_class(right, "BatchNormalization"), _set(epsilon=2e-5))


@fault("BN: no scale", "structure")
def no_scale(right: Right, rng: np.random.Generator) -> Planted | None:
    """A gamma in use, and no variable for it."""
    return _edited(right, rng, _of_class(right, "BatchNormalization"), _set(scale=False))


@fault("BN: no centre", "structure")
def no_centre(right: Right, rng: np.random.Generator) -> Planted | None:
    """A beta in use, and no variable for it."""
    return _edited(right, rng, _of_class(right, "BatchNormalization"), _set(center=False))


@fault("BN: missing", "structure")
def norm_missing(right: Right, rng: np.random.Generator) -> Planted | None:
    """A whole normalisation left out."""
    return _edited(right, rng, _of_class(right, "BatchNormalization"), remove)


def _padded(right: Right) -> list[tuple[Layer, Layer]]:
    config = _config(right)
    return [
        (pad, reader)
        for pad in layers_of(config, "ZeroPadding2D")
        for reader in readers(config, pad["name"])
        if reader["class_name"] in _CONVS
    ]


@fault("conv: same in place of padding (1, 1) at stride 2", "structure")
def same_at_stride_2(right: Right, rng: np.random.Generator) -> Planted | None:
    """TensorFlow pads another border."""
    chosen = pick(rng, _padded(right))
    if chosen is None:
        return None
    pad, conv = (layer["name"] for layer in chosen)

    def edit(config: Config) -> None:
        layer_of(config, conv)["config"]["padding"] = "same"
        remove(config, layer_of(config, pad))

    return Planted(model=rebuilt(right, edit), layers=frozenset({right.home[conv]}), where=conv)


@fault("conv: padding off by one", "structure")
def padding_shifted(right: Right, rng: np.random.Generator) -> Planted | None:
    """One row more before, one less after."""
    pads = [pad for pad, _ in _padded(right)]

    def edit(_: Config, layer: Layer) -> None:
        (top, bottom), (left, right_) = layer["config"]["padding"]
        layer["config"]["padding"] = [[top + 1, bottom - 1], [left, right_]]

    return _edited(right, rng, pads, edit)


@fault("conv: dilation 2", "structure")
def dilated(right: Right, rng: np.random.Generator) -> Planted | None:
    """A 3x3 window with holes; "same" keeps the size."""
    same = [
        layer
        for layer in _of_class(right, "Conv2D")
        if layer["config"]["padding"] == "same" and list(layer["config"]["kernel_size"]) == [3, 3]
        and list(layer["config"]["strides"]) == [1, 1]
    ]  # fmt: skip
    return _edited(right, rng, same, _set(dilation_rate=[2, 2]))


@fault("conv: stride in another conv of the block", "structure")
def stride_moved(right: Right, rng: np.random.Generator) -> Planted | None:
    """A 1x1 convolution takes the stride of the 3x3 one behind it."""
    config = _config(right)
    found = []
    for conv in layers_of(config, *_CONVS):
        if list(conv["config"]["strides"]) != [2, 2]:
            continue
        above = conv
        for _ in range(4):
            above = layer_of(config, sources(above)[0]) if sources(above) else above
            if above["class_name"] == "Conv2D" and above is not conv:
                break
        plain = above["class_name"] == "Conv2D" and above is not conv
        ones = [list(above["config"].get(key, ())) == [1, 1] for key in ("strides", "kernel_size")]
        if plain and all(ones) and len(readers(config, above["name"])) == 1:
            found.append((above["name"], conv["name"]))
    chosen = pick(rng, found)
    if chosen is None:
        return None

    def edit(edited: Config) -> None:
        layer_of(edited, chosen[0])["config"]["strides"] = [2, 2]
        layer_of(edited, chosen[1])["config"]["strides"] = [1, 1]

    return Planted(
        model=rebuilt(right, edit), layers=frozenset(right.home[n] for n in chosen), where=" → ".join(chosen)
    )


@fault("bias: none where PyTorch has one", "structure")
def no_bias(right: Right, rng: np.random.Generator) -> Planted | None:
    """use_bias=False."""
    with_bias = [layer for layer in _of_class(right, "Dense", *_CONVS) if layer["config"]["use_bias"]]
    return _edited(right, rng, with_bias, _set(use_bias=False))


@fault("bias: one in use that PyTorch lacks", "structure")
def extra_bias(right: Right, rng: np.random.Generator) -> Planted | None:
    """use_bias=True, and numbers in it."""
    without = [layer for layer in _of_class(right, "Dense", *_CONVS) if not layer["config"]["use_bias"]]
    planted = _edited(right, rng, without, _set(use_bias=True))
    if planted is not None:
        bias = planted.model.get_layer(planted.where).bias
        bias.assign(rng.standard_normal(bias.shape).astype(np.float32) * 0.01)
    return planted


def _relus(right: Right) -> list[Layer]:
    return [layer for layer in _of_class(right, *_ACTIVATIONS) if right.home[layer["name"]]]


_OTHERS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("activation: LeakyReLU", "keras.layers", "LeakyReLU", {"negative_slope": 0.01}),
    ("activation: GELU", "keras.layers", "Activation", {"activation": "gelu"}),
    ("activation: ELU", "keras.layers", "ELU", {"alpha": 1.0}),
    ("activation: tanh", "keras.layers", "Activation", {"activation": "tanh"}),
)


def _register_activations() -> None:
    for name, module, cls, settings in _OTHERS:

        def plant(
            right: Right,
            rng: np.random.Generator,
            module: str = module,
            cls: str = cls,
            settings: dict[str, Any] = settings,
        ) -> Planted | None:
            def edit(_: Config, layer: Layer) -> None:
                layer.update({"module": module, "class_name": cls, "config": {"name": layer["name"], **settings}})

            return _edited(right, rng, _relus(right), edit)

        fault(name, "structure")(plant)


_register_activations()


@fault("activation: ReLU for ReLU6 or ReLU6 for ReLU", "structure")
def ceiling(right: Right, rng: np.random.Generator) -> Planted | None:
    """The upper limit lost, or one too many."""

    def edit(_: Config, layer: Layer) -> None:
        bounded = layer["config"].get("max_value") is not None
        settings = {"name": layer["name"], "max_value": None if bounded else 6.0}
        layer.update({"module": "keras.layers", "class_name": "ReLU", "config": settings})

    return _edited(right, rng, _relus(right), edit)


@fault("activation: missing", "structure")
def activation_missing(right: Right, rng: np.random.Generator) -> Planted | None:
    """A ReLU left out."""
    return _edited(right, rng, _relus(right), remove)


@fault("activation: doubled", "structure")
def activation_doubled(right: Right, rng: np.random.Generator) -> Planted | None:
    """A second activation behind a convolution."""
    behind = [layer for layer in _of_class(right, *_CONVS) if layer["config"].get("activation") in (None, "linear")]

    def edit(config: Config, layer: Layer) -> None:
        insert_behind(config, layer, "keras.layers", "Activation", {"activation": "relu"})

    chosen = pick(rng, behind)
    if chosen is None:
        return None
    name = chosen["name"]
    model = rebuilt(right, lambda config: edit(config, layer_of(config, name)))
    extra = f"{name}_extra"
    next_ones = {right.home.get(r["name"], "") for r in readers(_config(right), name)}
    return Planted(model=model, layers=frozenset({right.home[name], extra, *next_ones}), where=name)


@fault("head: softmax", "structure")
def softmax_head(right: Right, rng: np.random.Generator) -> Planted | None:
    """Probabilities in place of logits."""
    last = [layer for layer in _of_class(right, "Dense") if not readers(_config(right), layer["name"])]
    planted = _edited(right, rng, last, _set(activation="softmax"))
    if planted is None:
        return None
    return Planted(model=planted.model, layers=planted.layers | {planted.where, "(model)"}, where=planted.where)


@fault("pooling: average for max or max for average", "structure")
def other_pooling(right: Right, rng: np.random.Generator) -> Planted | None:
    """The other kind of pooling."""

    def edit(_: Config, layer: Layer) -> None:
        now = layer["class_name"]
        layer["class_name"] = now.replace("Average", "Max") if "Average" in now else now.replace("Max", "Average")

    pools = _of_class(right, "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D")
    return _edited(right, rng, pools, edit)


@fault("pooling: window 3 for 2", "structure")
def larger_window(right: Right, rng: np.random.Generator) -> Planted | None:
    """A larger window at the same stride; "same" keeps the size."""
    all_pools = _of_class(right, "MaxPooling2D", "AveragePooling2D")
    pools = [p for p in all_pools if list(p["config"]["pool_size"]) == [2, 2]]
    return _edited(right, rng, pools, _set(pool_size=[3, 3], padding="same"))


@fault("pooling: same in place of padding (1, 1)", "structure")
def pool_same(right: Right, rng: np.random.Generator) -> Planted | None:
    """A pooling whose windows start one further."""
    config = _config(right)
    found = [
        (pad["name"], pool["name"])
        for pool in layers_of(config, "MaxPooling2D")
        for pad in config["layers"]
        if pad["name"] in sources(pool) and pad["class_name"] in ("Pad", "ZeroPadding2D")
    ]
    chosen = pick(rng, found)
    if chosen is None:
        return None

    def edit(edited: Config) -> None:
        layer_of(edited, chosen[1])["config"]["padding"] = "same"
        remove(edited, layer_of(edited, chosen[0]))

    return Planted(model=rebuilt(right, edit), layers=frozenset({right.home[chosen[1]]}), where=chosen[1])


@fault("join: multiply for add", "structure")
def multiplied(right: Right, rng: np.random.Generator) -> Planted | None:
    """A residual that multiplies."""

    def edit(_: Config, layer: Layer) -> None:
        layer.update({"module": "keras.layers", "class_name": "Multiply", "config": {"name": layer["name"]}})

    return _edited(right, rng, _of_class(right, "Add"), edit)


@fault("join: residual missing", "structure")
def residual_missing(right: Right, rng: np.random.Generator) -> Planted | None:
    """A sum left out: only its first argument goes on."""
    identity = [a for a in _of_class(right, "Add") if len(readers(_config(right), sources(a)[1])) > 1]
    return _edited(right, rng, identity, remove)


@fault("join: order of a concat", "structure")
def concat_order(right: Right, rng: np.random.Generator) -> Planted | None:
    """Two arguments of a concatenation exchanged."""

    def edit(_: Config, layer: Layer) -> None:
        arguments = layer["inbound_nodes"][0]["args"][0]
        arguments[0], arguments[-1] = arguments[-1], arguments[0]

    several = [c for c in _of_class(right, "Concatenate") if len(sources(c)) > 1]
    chosen = pick(rng, several)
    if chosen is None:
        return None
    name = chosen["name"]
    model = rebuilt(right, lambda config: edit(config, layer_of(config, name)))
    next_ones = {right.home.get(r["name"], "") for r in readers(_config(right), name)}
    return Planted(model=model, layers=frozenset({right.home[name], *next_ones}), where=name)


@fault("branches: a sum reads a block too early", "structure")
def early_residual(right: Right, rng: np.random.Generator) -> Planted | None:
    """The shortcut of a block starts one block before."""
    config = _config(right)
    sums = _of_class(right, "Add")
    found = []
    for before, now in itertools.pairwise(sums):
        here, there = (
            [t for t in sources(layer) if len(readers(config, t)) > 1] for layer in (now, before)
        )  # fmt: skip
        if here and there and here[-1] != there[-1] and _shape(right, here[-1]) == _shape(right, there[-1]):
            found.append((now["name"], here[-1], there[-1]))
    chosen = pick(rng, found)
    if chosen is None:
        return None
    name, old, new = chosen
    model = rebuilt(right, lambda edited: redirect(edited, old, new, only=layer_of(edited, name)))
    next_ones = {right.home.get(r["name"], "") for r in readers(config, name)}
    return Planted(model=model, layers=frozenset({right.home[name], *next_ones}), where=name)


def _shape(right: Right, name: str) -> tuple[int | None, ...]:
    operation = next(op for op in right.model.operations if op.name == name)
    return tuple(operation.output.shape)


@fault("layers: two neighbours of equal shape exchanged", "structure")
def neighbours_exchanged(right: Right, rng: np.random.Generator) -> Planted | None:
    """A normalisation and the activation behind it change places."""
    config = _config(right)
    found = []
    for norm in _of_class(right, "BatchNormalization"):
        below = readers(config, norm["name"])
        if len(below) == 1 and below[0]["class_name"] in _ACTIVATIONS and right.home.get(below[0]["name"]):
            found.append((norm["name"], below[0]["name"]))
    chosen = pick(rng, found)
    if chosen is None:
        return None
    norm_name, act_name = chosen

    def edit(edited: Config) -> None:
        norm, act = layer_of(edited, norm_name), layer_of(edited, act_name)
        above = sources(norm)[0]
        for reader in readers(edited, act_name):
            redirect(edited, act_name, norm_name, only=reader)
        redirect(edited, above, act_name, only=norm)
        redirect(edited, norm_name, above, only=act)
        place = edited["layers"].index(norm)
        edited["layers"].remove(act)
        edited["layers"].insert(place, act)

    layers = frozenset(right.home[n] for n in chosen)
    return Planted(model=rebuilt(right, edit), layers=layers, where=" ↔ ".join(chosen))


@fault("preprocessing: an extra Rescaling in front", "structure")
def rescaling(right: Right, rng: np.random.Generator) -> Planted | None:
    """Inputs divided by 255."""
    first = layers_of(_config(right), "InputLayer")[0]["name"]

    def edit(config: Config) -> None:
        insert_behind(config, layer_of(config, first), "keras.layers", "Rescaling", {"scale": 1 / 255.0, "offset": 0.0})

    next_ones = {right.home.get(r["name"], "") for r in readers(_config(right), first)}
    return Planted(model=rebuilt(right, edit), layers=frozenset({f"{first}_extra", *next_ones}), where=first)
