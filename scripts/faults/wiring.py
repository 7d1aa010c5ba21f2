"""Faults in what layers read, and layers in each other's place."""

from __future__ import annotations

import itertools

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
    redirect,
    remove,
    sources,
)


@fault("join: multiply for add", "structure")
def multiplied(right: Right, rng: np.random.Generator) -> Planted | None:
    """A residual that multiplies."""

    def edit(_: Config, layer: Layer) -> None:
        layer.update({"module": "keras.layers", "class_name": "Multiply", "config": {"name": layer["name"]}})

    return edited_layer(right, rng, layers_of_class(right, "Add"), edit)


@fault("join: residual missing", "structure")
def residual_missing(right: Right, rng: np.random.Generator) -> Planted | None:
    """A sum left out: only its first argument goes on."""
    identity = [a for a in layers_of_class(right, "Add") if len(readers(config_of(right), sources(a)[1])) > 1]
    return edited_layer(right, rng, identity, remove)


@fault("join: order of a concat", "structure")
def concat_order(right: Right, rng: np.random.Generator) -> Planted | None:
    """Two arguments of a concatenation exchanged."""

    def edit(_: Config, layer: Layer) -> None:
        arguments = layer["inbound_nodes"][0]["args"][0]
        arguments[0], arguments[-1] = arguments[-1], arguments[0]

    several = [c for c in layers_of_class(right, "Concatenate") if len(sources(c)) > 1]
    chosen = pick(rng, several)
    if chosen is None:
        return None
    name = chosen["name"]
    model = rebuilt(right, lambda config: edit(config, layer_of(config, name)))
    next_ones = {right.home.get(r["name"], "") for r in readers(config_of(right), name)}
    forwards = {path.rpartition(".")[0] for path in next_ones if "." in path}  # where the function may be written
    return Planted(model=model, layers=frozenset({right.home[name], *next_ones, *forwards}), where=name)


@fault("branches: a sum reads a block too early", "structure")
def early_residual(right: Right, rng: np.random.Generator) -> Planted | None:
    """The shortcut of a block starts one block before."""
    config = config_of(right)
    sums = layers_of_class(right, "Add")
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
    config = config_of(right)
    found = []
    for norm in layers_of_class(right, "BatchNormalization"):
        below = readers(config, norm["name"])
        if len(below) == 1 and below[0]["class_name"] in ACTIVATIONS and right.home.get(below[0]["name"]):
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
    first = layers_of(config_of(right), "InputLayer")[0]["name"]

    def edit(config: Config) -> None:
        insert_behind(config, layer_of(config, first), "keras.layers", "Rescaling", {"scale": 1 / 255.0, "offset": 0.0})

    next_ones = {right.home.get(r["name"], "") for r in readers(config_of(right), first)}
    return Planted(model=rebuilt(right, edit), layers=frozenset({f"{first}_extra", *next_ones}), where=first)
