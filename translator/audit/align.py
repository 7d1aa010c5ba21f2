"""Two models, layer to layer, with no help from names: what is what, how it lies, and which weights belong together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from torch import nn

from translator.audit.attention import attention_normalised
from translator.audit.biases import same_biases
from translator.audit.bind import Bound, bind
from translator.audit.claim import claims_of, parameter_claim
from translator.audit.folds import absorb_folded_norms
from translator.audit.inputs import input_shapes, same_order
from translator.audit.keras_network import KerasNetwork, network_of
from translator.audit.matching import coverage, match
from translator.audit.network import Network, Unit
from translator.audit.normalise import normalised
from translator.audit.packing import same_packing
from translator.audit.sums import sums_joined
from translator.audit.torch_network import TorchNetwork, trace_module
from translator.audit.values import Values, match_values
from translator.claims import Claims
from translator.errors import InputError
from translator.types import Layout
from translator.verify.keras_graph import KerasGraph
from translator.verify.keras_record import graph_of_any
from translator.verify.keras_split import split_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A unit of each side that are each other's. fit: share of their neighbours that are, too."""

    torch: Unit
    keras: Unit
    fit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Everything the aligner found.

    left, right: the networks as they were matched (paddings inside their windows). torch_only, keras_only: units
    without a partner. bound: one entry for each Keras variable that has a meaning. unbound: PyTorch tensors, by name,
    that no variable holds. coverage: share of the weights in layers with a partner that fits, of the side
    that has more of them. misfit: why the two can't be given the same inputs.
    """

    torch: TorchNetwork = field(repr=False)
    keras: KerasNetwork = field(repr=False)
    left: Network = field(repr=False)
    right: Network = field(repr=False)
    pairs: tuple[Pair, ...]
    torch_only: tuple[Unit, ...]
    keras_only: tuple[Unit, ...]
    values: Values = field(repr=False)
    bound: tuple[Bound, ...] = field(repr=False)
    unbound: tuple[str, ...]
    claims: Claims = field(repr=False)
    coverage: float
    misfit: InputError | None = None

    def with_bound(self, bound: tuple[Bound, ...]) -> Alignment:
        """The same alignment with other ideas of what the variables hold."""
        parameters = tuple(parameter_claim(b) for b in bound)
        return replace(self, bound=bound, claims=replace(self.claims, parameters=parameters))

    @property
    def graph(self) -> KerasGraph:
        """The Keras graph that the claims speak of."""
        return self.keras.graph


def align(
    module: nn.Module, model: keras.Model, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Alignment:
    """Align a PyTorch module, run on its example arguments, with a Keras model."""
    torch_side = trace_module(module, args, kwargs)
    examples = [torch_side.network.shapes[v] for v in torch_side.network.inputs]
    graph = split_layers(graph_of_any(model, [Layout.channels_last(len(s)).keras_shape(s) for s in examples]))
    shapes, misfit = input_shapes(torch_side.network, graph)
    keras_side = network_of(model, graph, shapes)
    keras_side = replace(keras_side, network=same_order(torch_side.network, keras_side.network))
    left = attention_normalised(sums_joined(normalised(torch_side.network)))
    right = attention_normalised(sums_joined(normalised(keras_side.network)))
    left = same_packing(left, right, torch_side.moves)
    matching = match(left, right)
    left, right = same_biases(left, right, matching.pairs)
    left = absorb_folded_norms(left, right, matching.pairs)
    left, right = _past_dropouts(left, 0, matching.pairs), _past_dropouts(right, 1, matching.pairs)
    values = match_values(torch_side, keras_side, left, right, matching.pairs)
    pairs = tuple(
        Pair(torch=left.units[t], keras=right.units[k], fit=fit)
        for (t, k), fit in zip(matching.pairs, matching.fits, strict=True)
    )
    bound = _bound(pairs, values)
    held = {name for b in bound for name in b.tensors}
    taken = {p.torch.index for p in pairs}
    found = {p.keras.index for p in pairs}
    return Alignment(
        torch=torch_side,
        keras=keras_side,
        left=left,
        right=right,
        pairs=pairs,
        torch_only=_alone(left, taken),
        keras_only=_alone(right, found),
        values=values,
        bound=bound,
        unbound=tuple(name for name in torch_side.tensors if name not in held),
        claims=claims_of(torch_side, keras_side, left, [(p.torch, p.keras) for p in pairs], values, bound),
        misfit=misfit,
        coverage=coverage(left, right, _sound(pairs, left, right)),
    )


def _alone(network: Network, paired: Collection[int]) -> tuple[Unit, ...]:
    """The units without a partner that did not become part of another one."""
    absorbed = {a.outputs for u in network.units for a in u.absorbed}
    return tuple(u for u in network.units if u.index not in paired and u.outputs not in absorbed)


def _past_dropouts(network: Network, side: int, pairs: Sequence[tuple[int, int]]) -> Network:
    """A dropout without a partner passes on what it reads, as it does in inference. It stays in the list of units."""
    partnered = {pair[side] for pair in pairs}
    past = dict(network.past)
    for unit in network.units:
        if unit.kind == "dropout" and unit.index not in partnered:
            past.update(dict.fromkeys(unit.outputs, unit.inputs))
    return replace(network, past=past)


def _sound(pairs: Sequence[Pair], left: Network, right: Network) -> list[tuple[int, int]]:
    """Pairs of one signature that fit what is around them, layers without a partner seen through."""
    partner = {p.torch.index: p.keras.index for p in pairs}
    ours, theirs = _above_paired(left, partner.keys()), _above_paired(right, set(partner.values()))
    found = []
    for pair in pairs:
        t, k = pair.torch, pair.keras
        read = {partner.get(s, s) for s in ours[t.index]}
        if t.signature == k.signature and (pair.fit >= 0.25 or read & theirs[k.index]):
            found.append((t.index, k.index))
    return found


def _above_paired(network: Network, paired: Collection[int]) -> list[set[int]]:
    """For each unit the nearest ones above it that have a partner, and inputs of the model."""
    rows: list[set[int]] = []
    for row in network.wiring():
        rows.append({s for w in row for s in ({w} if w < 0 or w in paired else rows[w])})
    return rows


def _bound(pairs: Sequence[Pair], values: Values) -> tuple[Bound, ...]:
    """Each Keras variable once: of a layer that is called several times its first call speaks."""
    found: dict[int, Bound] = {}
    for pair in pairs:
        if not pair.keras.weights:
            continue
        read = values.layouts.get(pair.torch.inputs[0]) if pair.torch.inputs else None
        for entry in bind(pair.torch, pair.keras, read):
            found.setdefault(id(entry.keras.handle), entry)
    return tuple(found.values())
