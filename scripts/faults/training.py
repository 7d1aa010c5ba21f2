"""Faults that inference can't show: only the configuration tells."""

from __future__ import annotations

import numpy as np

from scripts.faults.planting import Config, Layer, Planted, Right, fault, layer_of, layers_of, pick, rebuilt, remove


def _edited(right: Right, rng: np.random.Generator, classes: tuple[str, ...], **settings: object) -> Planted | None:
    config = right.model.get_config()
    chosen = pick(rng, [layer for layer in layers_of(config, *classes) if right.home.get(layer["name"])])
    if chosen is None:
        return None
    name = chosen["name"]
    model = rebuilt(right, lambda edited: layer_of(edited, name)["config"].update(settings))
    return Planted(model=model, layers=frozenset({right.home[name]}), where=name)


@fault("BN: momentum 0.99", "training", training=True)
def momentum(right: Right, rng: np.random.Generator) -> Planted | None:
    """Keras' default."""
    return _edited(right, rng, ("BatchNormalization",), momentum=0.99)


@fault("BN: momentum 0.1, PyTorch's number in Keras' sense", "training", training=True)
def momentum_inverted(right: Right, rng: np.random.Generator) -> Planted | None:
    """One minus too few."""
    return _edited(right, rng, ("BatchNormalization",), momentum=0.1)


@fault("a layer frozen", "training", training=True)
def frozen(right: Right, rng: np.random.Generator) -> Planted | None:
    """trainable=False."""
    return _edited(right, rng, ("Conv2D", "Dense", "BatchNormalization", "DepthwiseConv2D"), trainable=False)


@fault("a regulariser", "training", training=True)
def regularised(right: Right, rng: np.random.Generator) -> Planted | None:
    """Weight decay twice."""
    value = {"module": "keras.regularizers", "class_name": "L2", "config": {"l2": 0.01}, "registered_name": None}
    return _edited(right, rng, ("Conv2D", "Dense"), kernel_regularizer=value)


@fault("dropout: another rate", "training", training=True)
def dropout_rate(right: Right, rng: np.random.Generator) -> Planted | None:
    """0.1 in place of PyTorch's rate."""
    return _edited(right, rng, ("Dropout",), rate=0.1)


@fault("dropout: missing", "training", training=True)
def dropout_missing(right: Right, rng: np.random.Generator) -> Planted | None:
    """No dropout at all."""
    config = right.model.get_config()
    chosen = pick(rng, layers_of(config, "Dropout"))
    if chosen is None:
        return None
    name = chosen["name"]

    def edit(edited: Config) -> None:
        layer: Layer = layer_of(edited, name)
        remove(edited, layer)

    return Planted(model=rebuilt(right, edit), layers=frozenset({right.home[name]}), where=name)
