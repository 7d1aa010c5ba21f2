"""The balance: PyTorch's total, each named reason why Keras' is another one, Keras' total; nothing may be left over."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import keras
from torch import nn

from translator.audit.align import Alignment
from translator.audit.bind import Bound
from translator.audit.folds import folded_norm
from translator.audit.network import Unit, Weight
from translator.verdict import Balance, Gap
from translator.verify.facts import Conv, Dense, Norm, Preprocessing

STATISTICS = "BN moving statistics, counted by Keras"
_STATISTIC_SLOTS = ("running_mean", "running_var")


@dataclass(slots=True)
class _Account:
    """Shares of the gap by reason, each with its layers, in order of appearance."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    layers: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, reason: str, count: int, layer: str) -> None:
        self.counts[reason] += count
        self.layers[reason][layer or "(model)"] = None

    def gaps(self) -> tuple[Gap, ...]:
        notes = {STATISTICS: "buffers in PyTorch: no real difference"}
        return tuple(
            Gap(reason=reason, count=count, layers=tuple(self.layers[reason]), note=notes.get(reason, ""))
            for reason, count in self.counts.items()
            if count
        )


def balance_of(alignment: Alignment, module: nn.Module, model: keras.Model) -> Balance:
    """Both totals, and every parameter that only one side counts under its reason."""
    account = _Account()
    covered = _covered(alignment)
    parameters = {name: t for name, t in alignment.torch.tensors.items() if isinstance(t, nn.Parameter)}
    homes = {w.name: (u, w) for u in _all_units(alignment) for w in u.weights}
    partnered = {p.torch.index: p.keras for p in alignment.pairs}
    for name, tensor in parameters.items():
        missing = tensor.numel() - min(covered[name], tensor.numel())
        if missing:
            account.add(_torch_reason(homes.get(name), partnered, alignment), -missing, _layer_of(name))
    _keras_side(account, alignment)
    _surplus(account, alignment, parameters)
    buffers = {name: t for name, t in alignment.torch.tensors.items() if name not in parameters}
    trainable = sum(math.prod(v.shape) for v in model.trainable_weights)
    total = sum(math.prod(v.shape) for v in {id(v): v for v in model.weights}.values())
    return Balance(
        torch_total=sum(p.numel() for p in module.parameters()),
        torch_trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        torch_buffers=sum(b.numel() for b in buffers.values()),
        torch_statistics=sum(b.numel() for n, b in buffers.items() if n.endswith(_STATISTIC_SLOTS)),
        keras_total=total,
        keras_trainable=trainable,
        keras_non_trainable=total - trainable,
        gaps=account.gaps(),
    )


def _all_units(alignment: Alignment) -> Iterable[Unit]:
    for unit in alignment.left.units:
        yield unit
        yield from unit.absorbed


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def _covered(alignment: Alignment) -> Mapping[str, int]:
    """How many elements of each PyTorch tensor are in Keras variables, computed ones included."""
    found: dict[str, int] = defaultdict(int)
    computed: set[str] = set()
    for bound in alignment.bound:
        if bound.binding is None:
            computed.update(bound.reads)
            continue
        for piece in bound.binding.pieces:
            if piece.region is None:
                found[piece.tensor] += alignment.torch.tensors[piece.tensor].numel()
            else:
                found[piece.tensor] += math.prod(b - a for a, b in piece.region)
    for name in computed:
        found[name] += alignment.torch.tensors[name].numel()
    return found


def _torch_reason(home: tuple[Unit, Weight] | None, partnered: Mapping[int, Unit], alignment: Alignment) -> str:
    if home is None:
        return "parameters that inference does not use"
    unit, weight = home
    if unit.index not in partnered or unit.index >= len(alignment.left.units):
        return "layers that only PyTorch has"
    k = partnered[unit.index]
    if unit.signature != k.signature:
        return "layers of another size"
    if weight.slot == "bias" and isinstance(unit.facts, Conv | Dense):
        return f"{_kind(unit)} biases that only PyTorch has"
    if isinstance(unit.facts, Norm):
        return f"normalisation {'scales' if weight.slot == 'weight' else 'centres'} that only PyTorch has"
    return "weights without a partner in PyTorch"


def _kind(unit: Unit) -> str:
    return "dense" if isinstance(unit.facts, Dense) else "conv"


def _surplus(account: _Account, alignment: Alignment, parameters: Mapping[str, object]) -> None:
    """Parameters that stand in more than one Keras variable, sums, folds and buffers that became variables."""
    seen: dict[str, int] = defaultdict(int)
    for bound in alignment.bound:
        size = bound.keras.size
        names = [n for n in bound.tensors if n in parameters]
        if bound.how == "constant":
            continue
        if bound.how == "sum":
            account.add("two biases in PyTorch, their sum in Keras", size - _sizes(alignment, names), bound.torch_layer)
        elif bound.how == "same" and not names:
            statistics = any(n.endswith(_STATISTIC_SLOTS) for n in bound.tensors)
            account.add(STATISTICS if statistics else "buffers kept as weights", size, bound.torch_layer)
        elif bound.how == "computed" and bound.tensors and all(n.endswith(_STATISTIC_SLOTS) for n in bound.tensors):
            account.add(STATISTICS, size, bound.torch_layer)
        elif bound.how == "same":
            seen[bound.tensors[0]] += size
    whole = _tied(alignment, seen)
    for name, count in whole.items():
        account.add("tied in PyTorch, separate in Keras", count, _layer_of(name))
    _folded(account, alignment, parameters)


def _sizes(alignment: Alignment, names: Iterable[str]) -> int:
    return sum(alignment.torch.tensors[n].numel() for n in names)


def _tied(alignment: Alignment, seen: Mapping[str, int]) -> dict[str, int]:
    covered = _covered(alignment)
    return {
        name: covered[name] - alignment.torch.tensors[name].numel()
        for name in seen
        if covered[name] > alignment.torch.tensors[name].numel()
    }


def _folded(account: _Account, alignment: Alignment, parameters: Mapping[str, object]) -> None:
    for unit in alignment.left.units:
        norm = folded_norm(unit)
        if norm is None:
            continue
        entries = [b for b in alignment.bound if b.how == "computed" and b.torch_layer == unit.path]
        torch = {n for b in entries for n in b.reads if n in parameters}
        size = sum(b.keras.size for b in entries) - _sizes(alignment, torch)
        account.add("BN folded into the layer before it", size, norm.path)


def _keras_side(account: _Account, alignment: Alignment) -> None:
    """Keras variables that hold nothing of PyTorch's."""
    bound = {id(b.keras.handle): b for b in alignment.bound}
    home = {id(w.handle): u for u in alignment.right.units for w in u.weights}
    partnered = {p.keras.index: p.torch for p in alignment.pairs}
    for weight in alignment.keras.weights:
        entry = bound.get(id(weight.handle))
        if entry is not None and entry.how != "constant":
            continue
        unit = home.get(id(weight.handle))
        layer = unit.path if unit is not None else weight.name.rpartition("/")[0]
        account.add(_keras_reason(entry, unit, partnered, weight), weight.size, layer)


def _keras_reason(entry: Bound | None, unit: Unit | None, partnered: Mapping[int, Unit], weight: Weight) -> str:
    if unit is None:
        return "variables that no call of the Keras model uses"
    if isinstance(unit.facts, Preprocessing):
        return "preprocessing layers"
    if unit.index not in partnered:
        return "layers that only Keras has"
    slot = weight.slot.rsplit("/", 1)[-1]
    if slot == "bias" and isinstance(unit.facts, Conv | Dense):
        return f"{_kind(unit)} biases that only Keras has"
    if isinstance(unit.facts, Norm) and entry is not None:
        what = {"gamma": "scales", "scale": "scales", "beta": "centres"}.get(slot, "statistics")
        return f"normalisation {what} that only Keras has"
    if unit.signature != partnered[unit.index].signature:
        return "layers of another size"
    return "weights without a partner in Keras"
