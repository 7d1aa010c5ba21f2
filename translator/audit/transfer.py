"""Weights from one model into the other, both ways, along what the aligner found; proven afterwards like a conversion.

What can't be done exactly is refused with the reason: a tensor without a home, a layer of another size. `partial`
moves what matches and lists the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from translator.audit.align import Alignment
from translator.audit.bind import Bound
from translator.audit.folds import folded_norm
from translator.audit.network import Unit, Weight
from translator.audit.unmatched import layer_name
from translator.bindings import to_torch
from translator.errors import InputError
from translator.verify.facts import Norm, Preprocessing
from translator.verify.keras_replay import to_numpy

_SHOWN = 12
_FRESH = {"mean": 0.0, "variance": 1.0, "count": None}  # a count is never read in inference
_TAKE_OUT = "build the Keras model without it and normalise the images beforehand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What a transfer moves. left: a sentence for each tensor or variable that stays as it was. notes: what was done
    to make things fit. folded: moving variances make up for other epsilons."""

    bound: tuple[Bound, ...]
    left: tuple[str, ...]
    notes: tuple[str, ...] = ()
    folded: bool = False


def plan_to_keras(alignment: Alignment, *, behind: frozenset[str], partial: bool, fold_epsilon: bool) -> Moves:
    """What goes from PyTorch into Keras. behind: tensors of layers behind the end of the Keras model.

    Raises InputError where something has no home and `partial` was not asked for.
    """
    missing = [*_homeless_variables(alignment), *_homeless_tensors(alignment, behind)]
    if missing and not partial:
        raise refusal("PyTorch's weights do not all fit the Keras model", missing)
    bound, notes = list(alignment.bound), []
    if behind:
        notes.append(f"the Keras model ends before {_layers(behind)}: those weights have no place in it")
    zeroed = [b for b in bound if b.how == "constant"]
    if zeroed:
        words = ", ".join(b.keras.name for b in zeroed[:3]) + (" …" if len(zeroed) > 3 else "")
        notes.append(f"{len(zeroed)} variables that only Keras has do nothing now ({words})")
    folded: list[str] = []
    if fold_epsilon:
        bound, folded = _fold_epsilons(alignment, bound)
    return Moves(bound=tuple(bound), left=tuple(missing), notes=(*notes, *folded), folded=bool(folded))


def refusal(what: str, reasons: list[str]) -> InputError:
    """The error that lists why weights can't be moved."""
    shown = reasons[:_SHOWN] + ([f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else [])
    return InputError(what + ":\n" + "\n".join(f"  {r}" for r in shown), fix="--partial moves what matches, no more")


def _layers(names: frozenset[str]) -> str:
    return ", ".join(sorted({n.rpartition(".")[0] for n in names}))


def _homeless_variables(alignment: Alignment) -> Iterator[str]:
    bound = {id(b.keras.handle) for b in alignment.bound}
    partner = {p.keras.index: p.torch for p in alignment.pairs}
    home = _homes(alignment)
    for weight in alignment.keras.weights:
        unit = home.get(id(weight.handle))
        if id(weight.handle) in bound or _does_nothing(unit, weight):
            continue
        t = partner.get(unit.index) if unit is not None else None
        if t is None and unit is not None and isinstance(unit.facts, Preprocessing):
            yield f"Keras' {weight.name} {weight.shape}: PyTorch has no {unit.facts.name}; {_TAKE_OUT}"
        elif t is None:
            yield f"Keras' {weight.name} {weight.shape}: PyTorch has no such layer"
        else:
            sizes = ", ".join(f"{w.name} {w.shape}" for w in t.weights if w.slot != "num_batches_tracked")
            yield f"Keras' {weight.name} {weight.shape}: its partner {layer_name(t)} has {sizes or 'no weights'}"


def _homes(alignment: Alignment) -> dict[int, Unit]:
    return {id(w.handle): u for u in alignment.right.units for w in u.weights}


def _does_nothing(unit: Unit | None, weight: Weight) -> bool:
    """Whether a variable belongs to a preprocessing that was never adapted to data, and so hands on what it gets."""
    slot = weight.slot.rsplit("/", 1)[-1]
    if unit is None or not isinstance(unit.facts, Preprocessing) or slot not in _FRESH:
        return False
    neutral = _FRESH[slot]
    return neutral is None or bool((to_numpy(weight.handle.value) == neutral).all())


def _homeless_tensors(alignment: Alignment, behind: frozenset[str]) -> Iterator[str]:
    read = {w.name: u for u in _units(alignment) for w in u.weights}
    for name in alignment.unbound:
        unit = read.get(name)
        if name.endswith("num_batches_tracked") or name in behind or unit is None:
            continue
        tensor = alignment.torch.tensors[name]
        neutral = 1.0 if name.endswith(("weight", "running_var")) and isinstance(unit.facts, Norm) else 0.0
        if tensor.ndim == 1 and bool((tensor == neutral).all()):
            continue  # it does nothing, so nothing is lost
        yield f"PyTorch's {name} {tuple(tensor.shape)}: Keras has no variable for it"


def _units(alignment: Alignment) -> Iterator[Unit]:
    for unit in alignment.left.units:
        yield unit
        yield from unit.absorbed


def tensors_behind(alignment: Alignment) -> frozenset[str]:
    """Names of the tensors of layers that no result of PyTorch's needs."""
    made, wiring = alignment.left.producers(), alignment.left.wiring()
    needed: set[int] = set()
    stack = [made[s] for end in alignment.left.outputs for s in alignment.left.sources(end) if s in made]
    while stack:
        unit = stack.pop()
        if unit not in needed:
            needed.add(unit)
            stack.extend(s for s in wiring[unit] if s >= 0)
    inside = {w.name for u in alignment.left.units if u.index in needed for p in (u, *u.absorbed) for w in p.weights}
    outside = {w.name for u in alignment.left.units if u.index not in needed for w in u.weights}
    return frozenset(outside - inside)


def _fold_epsilons(alignment: Alignment, bound: list[Bound]) -> tuple[list[Bound], list[str]]:
    """Moving variances that make up for another epsilon: the same function in inference."""
    shifts: dict[int, tuple[float, Unit]] = {}
    for pair in alignment.pairs:
        want, got = pair.torch.facts, pair.keras.facts
        if isinstance(want, Norm) and isinstance(got, Norm) and want.kind == got.kind == "batch":
            variance = next((w for w in pair.keras.weights if w.slot.endswith("moving_variance")), None)
            if variance is not None and want.epsilon != got.epsilon:
                shifts[id(variance.handle)] = (want.epsilon - got.epsilon, pair.torch)
    if not shifts:
        return bound, []
    made = [_shifted(b, *shifts[id(b.keras.handle)]) if id(b.keras.handle) in shifts else b for b in bound]
    note = f"the epsilons of {len(shifts)} BatchNormalizations were folded into their moving variances"
    return made, [f"{note}: the same in inference, not in training"]


def _shifted(bound: Bound, shift: float, unit: Unit) -> Bound:
    def compute(state: Mapping[str, np.ndarray]) -> np.ndarray:
        value = bound.value(state)
        variance = np.asarray(value, dtype=np.float64) + shift
        if (variance < 0).any():
            raise InputError(
                f"{layer_name(unit)}: its smallest running variance is below the difference of the epsilons",
                fix="without --fold-epsilon, after setting epsilon in the Keras code",
            )
        return variance.astype(np.float32)

    return replace(bound, binding=None, compute=compute, reads=bound.tensors, how="computed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """PyTorch tensors made from Keras' variables, and what was done about those that Keras has no twin of."""

    state: Mapping[str, np.ndarray]
    left: tuple[str, ...]
    notes: tuple[str, ...]


def to_state(alignment: Alignment, module: nn.Module, *, partial: bool) -> Back:
    """A state dict for `module` from the Keras model: Keras' numbers where there are some, else what does nothing.

    Raises InputError where a tensor has no source, or Keras has something in use that PyTorch has no place for.
    """
    shapes = {name: tuple(t.shape) for name, t in alignment.torch.tensors.items()}
    values = [(b, to_numpy(b.keras.handle.value)) for b in alignment.bound]
    found = to_torch([(b.binding, v) for b, v in values if b.binding is not None], shapes)
    notes: list[str] = []
    _split_sums(found, values, notes)
    _unfold(found, alignment, notes)
    _fill_neutral(found, alignment, notes)
    missing = [
        f"PyTorch's {name} {shapes[name]}: Keras has nothing for it"
        for name in shapes
        if name not in found and not name.endswith("num_batches_tracked") and _is_read(alignment, name)
    ]
    missing += [
        f"Keras' {b.keras.name} is in use, and PyTorch's {b.torch_layer} has no place for it"
        for b, v in values
        if b.how == "constant" and not bool((v == b.neutral).all())
    ]
    held = {id(b.keras.handle) for b in alignment.bound}
    home = _homes(alignment)
    missing += [
        f"Keras' {w.name} {w.shape}: PyTorch has no tensor for it"
        for w in alignment.keras.weights
        if id(w.handle) not in held and not _does_nothing(home.get(id(w.handle)), w)
    ]
    if missing and not partial:
        raise refusal("Keras' weights do not all fit the PyTorch model", missing)
    own = module.state_dict(keep_vars=True)
    state = {name: found.get(alignment.torch.aliases.get(name, name)) for name in own}
    return Back(
        state={k: v for k, v in state.items() if v is not None}, left=tuple(missing), notes=tuple(notes)
    )  # fmt: skip


def _is_read(alignment: Alignment, name: str) -> bool:
    return any(w.name == name for u in _units(alignment) for w in u.weights)


def _split_sums(found: dict[str, np.ndarray], values: list[tuple[Bound, np.ndarray]], notes: list[str]) -> None:
    summed = [(b, v) for b, v in values if b.how == "sum"]
    for bound, value in summed:
        first, *others = bound.tensors
        found[first] = value
        found.update({name: np.zeros_like(value) for name in others})
    if summed:
        notes.append(f"{len(summed)} biases that PyTorch has twice: Keras' went into the first, the second is zero")


def _unfold(found: dict[str, np.ndarray], alignment: Alignment, notes: list[str]) -> None:
    """A BatchNorm that was folded comes back as one that only adds the bias."""
    folded = [u for u in alignment.left.units if folded_norm(u) is not None]
    for unit in folded:
        norm, entries = folded_norm(unit), [b for b in alignment.bound if b.torch_layer == unit.path]
        computed = [b for b in entries if b.how == "computed"]
        if norm is None or len(computed) != 2 or not isinstance(norm.facts, Norm):
            continue
        kernel, bias = (to_numpy(b.keras.handle.value) for b in computed)
        straight = computed[0].inverse
        if straight is None:
            continue
        found.update(straight(kernel))
        size = bias.size
        numbers = {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - norm.facts.epsilon}
        for slot, number in numbers.items():
            if (weight := norm.weight(slot)) is not None:
                found[weight.name] = np.full(size, number, dtype=bias.dtype)
        if (shift := norm.weight("bias")) is not None:
            found[shift.name] = bias.reshape(-1)
        if (own := unit.weight("bias")) is not None:
            found[own.name] = np.zeros(size, dtype=bias.dtype)
    if folded:
        notes.append(f"{len(folded)} BatchNorms were folded in Keras: here they only add the bias")


_NEUTRAL = {"bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


def _fill_neutral(found: dict[str, np.ndarray], alignment: Alignment, notes: list[str]) -> None:
    """Biases, scales and centres that Keras does not have do nothing."""
    filled = []
    for pair in alignment.pairs:
        for weight in pair.torch.weights:
            number = _neutral(pair.torch, weight)
            if weight.name not in found and number is not None and not _has_twin(pair.keras, weight):
                found[weight.name] = np.full(weight.shape, number, dtype=np.float32)
                filled.append(weight.name)
    if filled:
        more = " …" if len(filled) > 3 else ""
        notes.append(f"{len(filled)} tensors that Keras does not have do nothing: {', '.join(filled[:3])}{more}")


def _neutral(unit: Unit, weight: Weight) -> float | None:
    if weight.slot == "weight":
        return 1.0 if isinstance(unit.facts, Norm) else None
    return _NEUTRAL.get(weight.slot)


def _has_twin(unit: Unit, weight: Weight) -> bool:
    names = {"weight": ("gamma", "scale", "kernel"), "bias": ("beta", "bias")}.get(weight.slot, ())
    return any(w.slot.rsplit("/", 1)[-1] in names and w.size != weight.size for w in unit.weights)
