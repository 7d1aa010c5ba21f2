"""Faults in the layers and in what they read: the weights are right, the function is not."""

from __future__ import annotations

from typing import Any

import numpy as np

from scripts.faults.planting import (
    ACTIVATIONS,
    Config,
    Layer,
    Planted,
    Right,
    config_of,
    edited_layer,
    fault,
    insert_behind,
    layer_of,
    layers_of,
    layers_of_class,
    pick,
    readers,
    rebuilt,
    remove,
    setting,
    sources,
)

_CONVS = ("Conv2D", "DepthwiseConv2D")


@fault("BN: epsilon 1e-3", "structure")
def epsilon(right: Right, rng: np.random.Generator) -> Planted | None:
    """Keras' default."""
    return edited_layer(right, rng, layers_of_class(right, "BatchNormalization"), setting(epsilon=1e-3))


@fault("BN: epsilon 2e-5", "structure")
def epsilon_doubled(right: Right, rng: np.random.Generator) -> Planted | None:
    """A small one."""
    return edited_layer(right, rng, layers_of_class(right, "BatchNormalization"), setting(epsilon=2e-5))


@fault("BN: no scale", "structure")
def no_scale(right: Right, rng: np.random.Generator) -> Planted | None:
    """A gamma in use, and no variable for it."""
    return edited_layer(right, rng, layers_of_class(right, "BatchNormalization"), setting(scale=False))


@fault("BN: no centre", "structure")
def no_centre(right: Right, rng: np.random.Generator) -> Planted | None:
    """A beta in use, and no variable for it."""
    return edited_layer(right, rng, layers_of_class(right, "BatchNormalization"), setting(center=False))


@fault("BN: missing", "structure")
def norm_missing(right: Right, rng: np.random.Generator) -> Planted | None:
    """A whole normalisation left out."""
    return edited_layer(right, rng, layers_of_class(right, "BatchNormalization"), remove)


def _padded(right: Right) -> list[tuple[Layer, Layer]]:
    config = config_of(right)
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

    return edited_layer(right, rng, pads, edit)


@fault("conv: dilation 2", "structure")
def dilated(right: Right, rng: np.random.Generator) -> Planted | None:
    """A 3x3 window with holes; "same" keeps the size."""
    same = [
        layer
        for layer in layers_of_class(right, "Conv2D")
        if layer["config"]["padding"] == "same" and list(layer["config"]["kernel_size"]) == [3, 3]
        and list(layer["config"]["strides"]) == [1, 1]
    ]  # fmt: skip
    return edited_layer(right, rng, same, setting(dilation_rate=[2, 2]))


@fault("conv: stride in another conv of the block", "structure")
def stride_moved(right: Right, rng: np.random.Generator) -> Planted | None:
    """A 1x1 convolution takes the stride of the 3x3 one behind it."""
    config = config_of(right)
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
    with_bias = [layer for layer in layers_of_class(right, "Dense", *_CONVS) if layer["config"]["use_bias"]]
    return edited_layer(right, rng, with_bias, setting(use_bias=False))


@fault("bias: one in use that PyTorch lacks", "structure")
def extra_bias(right: Right, rng: np.random.Generator) -> Planted | None:
    """use_bias=True, and numbers in it."""
    without = [layer for layer in layers_of_class(right, "Dense", *_CONVS) if not layer["config"]["use_bias"]]
    planted = edited_layer(right, rng, without, setting(use_bias=True))
    if planted is not None:
        bias = planted.model.get_layer(planted.where).bias
        bias.assign(rng.standard_normal(bias.shape).astype(np.float32) * 0.01)
    return planted


def _relus(right: Right) -> list[Layer]:
    return [layer for layer in layers_of_class(right, *ACTIVATIONS) if right.home[layer["name"]]]


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

            return edited_layer(right, rng, _relus(right), edit)

        fault(name, "structure")(plant)


_register_activations()


@fault("activation: ReLU for ReLU6 or ReLU6 for ReLU", "structure")
def ceiling(right: Right, rng: np.random.Generator) -> Planted | None:
    """The upper limit lost, or one too many."""

    def edit(_: Config, layer: Layer) -> None:
        bounded = layer["config"].get("max_value") is not None
        settings = {"name": layer["name"], "max_value": None if bounded else 6.0}
        layer.update({"module": "keras.layers", "class_name": "ReLU", "config": settings})

    return edited_layer(right, rng, _relus(right), edit)


@fault("activation: missing", "structure")
def activation_missing(right: Right, rng: np.random.Generator) -> Planted | None:
    """A ReLU left out."""
    return edited_layer(right, rng, _relus(right), remove)


@fault("activation: doubled", "structure")
def activation_doubled(right: Right, rng: np.random.Generator) -> Planted | None:
    """A second activation behind a convolution."""
    behind = [
        layer for layer in layers_of_class(right, *_CONVS) if layer["config"].get("activation") in (None, "linear")
    ]

    def edit(config: Config, layer: Layer) -> None:
        insert_behind(config, layer, "keras.layers", "Activation", {"activation": "relu"})

    chosen = pick(rng, behind)
    if chosen is None:
        return None
    name = chosen["name"]
    model = rebuilt(right, lambda config: edit(config, layer_of(config, name)))
    extra = f"{name}_extra"
    next_ones = {right.home.get(r["name"], "") for r in readers(config_of(right), name)}
    return Planted(model=model, layers=frozenset({right.home[name], extra, *next_ones}), where=name)


@fault("head: softmax", "structure")
def softmax_head(right: Right, rng: np.random.Generator) -> Planted | None:
    """Probabilities in place of logits."""
    last = [layer for layer in layers_of_class(right, "Dense") if not readers(config_of(right), layer["name"])]
    planted = edited_layer(right, rng, last, setting(activation="softmax"))
    if planted is None:
        return None
    return Planted(model=planted.model, layers=planted.layers | {planted.where, "(model)"}, where=planted.where)


@fault("pooling: average for max or max for average", "structure")
def other_pooling(right: Right, rng: np.random.Generator) -> Planted | None:
    """The other kind of pooling."""

    def edit(_: Config, layer: Layer) -> None:
        now = layer["class_name"]
        layer["class_name"] = now.replace("Average", "Max") if "Average" in now else now.replace("Max", "Average")

    pools = layers_of_class(right, "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D")
    return edited_layer(right, rng, pools, edit)


@fault("pooling: window 3 for 2", "structure")
def larger_window(right: Right, rng: np.random.Generator) -> Planted | None:
    """A larger window at the same stride; "same" keeps the size."""
    all_pools = layers_of_class(right, "MaxPooling2D", "AveragePooling2D")
    pools = [p for p in all_pools if list(p["config"]["pool_size"]) == [2, 2]]
    return edited_layer(right, rng, pools, setting(pool_size=[3, 3], padding="same"))


@fault("pooling: same in place of padding (1, 1)", "structure")
def pool_same(right: Right, rng: np.random.Generator) -> Planted | None:
    """A pooling whose windows start one further."""
    config = config_of(right)
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
