"""The parameter ledger: every PyTorch tensor once, every Keras variable once, each number where it is claimed to be.

What must be booked comes from the two models; the claims only say how the two sides belong together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from translator.claims import Claims, ParameterClaim
from translator.verdict import Balance, Check, Difference, Effect, Gap
from translator.verify.keras_layers import find_variable, layers_by_path, owners, weights_of
from translator.verify.keras_replay import to_numpy
from translator.verify.weights import named_tensors

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One PyTorch tensor, whatever its names. statistic: a running mean or variance of a normalisation."""

    name: str
    names: tuple[str, ...]
    tensor: torch.Tensor
    parameter: bool
    statistic: bool = False

    @property
    def layer(self) -> str:
        """The module that holds it."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """One claim with the variable and the tensors it speaks of."""

    claim: ParameterClaim
    variable: Any
    tensors: tuple[Held, ...]
    owner: str


@dataclass(slots=True)
class Ledger:
    """The books: what is on either side, what belongs together, and what is wrong with it.

    wrong: layer → why. unused: tensors that no Keras variable needs because PyTorch's own result does not.
    """

    module: nn.Module
    model: keras.Model
    held: dict[str, Held]
    variables: list[Any]
    bookings: list[Booking] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    unused: list[Held] = field(default_factory=list)

    def accuse(self, layer: str, why: str) -> None:
        """Note the first thing that is wrong with a layer."""
        self.wrong.setdefault(layer, why)


def held_tensors(module: nn.Module) -> dict[str, Held]:
    """PyTorch's tensors by each of their names; those that are one tensor share one entry under its first name."""
    names: dict[int, list[str]] = {}
    tensors = named_tensors(module)
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    found: dict[str, Held] = {}
    for group in names.values():
        owner, _, attribute = group[0].rpartition(".")
        held = Held(
            name=group[0],
            names=tuple(group),
            tensor=tensors[group[0]],
            parameter=isinstance(tensors[group[0]], nn.Parameter),
            statistic=attribute in _STATISTICS
            and isinstance(module.get_submodule(owner), nn.modules.batchnorm._NormBase),
        )
        found.update(dict.fromkeys(group, held))
    return found


def keep_books(module: nn.Module, model: keras.Model, claims: Claims, unused: Iterable[str] = ()) -> Ledger:
    """Book every claim and look at everything it says. unused: names of parameters that the result does not need."""
    ledger = Ledger(module, model, held_tensors(module), weights_of(model))
    _book(ledger, claims)
    spare = frozenset(unused)
    _all_tensors_once(ledger, spare)
    _all_variables_once(ledger)
    _sizes(ledger)
    _values(ledger)
    _trainable(ledger)
    return ledger


def unbooked(module: nn.Module, claims: Claims) -> list[str]:
    """Names of the parameters and statistics that no claim mentions under any name."""
    claimed = {claims.aliases.get(n, n) for c in claims.parameters for n in c.tensors}
    held = {h.name: h for h in held_tensors(module).values() if h.parameter or h.statistic}
    return [h.name for h in held.values() if not claimed & {claims.aliases.get(n, n) for n in h.names}]


def balance(ledger: Ledger) -> Balance:
    """The totals of both sides and the named gaps between them."""
    held = list({h.name: h for h in ledger.held.values()}.values())
    parameters = [h for h in held if h.parameter]
    buffers = [h for h in held if not h.parameter]
    trainable = {id(v) for v in ledger.model.trainable_weights}
    sizes = [(_size(v), id(v) in trainable) for v in ledger.variables]
    return Balance(
        torch_total=sum(h.tensor.numel() for h in parameters),
        torch_trainable=sum(h.tensor.numel() for h in parameters if h.tensor.requires_grad),
        torch_buffers=sum(h.tensor.numel() for h in buffers),
        torch_statistics=sum(h.tensor.numel() for h in buffers if h.statistic),
        keras_total=sum(size for size, _ in sizes),
        keras_trainable=sum(size for size, on in sizes if on),
        keras_non_trainable=sum(size for size, on in sizes if not on),
        gaps=tuple(_gaps(ledger)),
    )


def check(ledger: Ledger, totals: Balance) -> Check:
    """The ledger as one check: every tensor and variable, and the balance itself."""
    subjects = len({h.name for h in ledger.held.values()}) + len(ledger.variables) + 1
    problems = [f"{layer}: {why}" for layer, why in ledger.wrong.items()]
    if totals.unexplained:
        problems.append(f"{totals.unexplained:+,} parameters are unexplained")
    detail = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    return Check(name="ledger", ok=not problems, subjects=subjects, detail=detail)


def _book(ledger: Ledger, claims: Claims) -> None:
    layers, owned = layers_by_path(ledger.model), owners(ledger.model)
    for claim in claims.parameters:
        layer = layers.get(claim.layer)
        variable = find_variable(layer, claim.variable) if layer is not None else None
        if variable is None:
            ledger.accuse(claim.layer, f"claims a variable {claim.variable} that the Keras model does not have")
            continue
        names = [claims.aliases.get(n, n) if n not in ledger.held else n for n in claim.tensors]
        unknown = [n for n in names if n not in ledger.held]
        if unknown:
            ledger.accuse(claim.layer, f"claims {', '.join(unknown)}, which PyTorch does not have")
            continue
        tensors = tuple(ledger.held[n] for n in names)
        owner = owned.get(id(variable), (claim.layer, layer))[0]
        ledger.bookings.append(Booking(claim=claim, variable=variable, tensors=tensors, owner=owner))


def _all_tensors_once(ledger: Ledger, unused: frozenset[str]) -> None:
    """Each parameter and statistic in exactly one variable, or in exact parts in several."""
    shares: Counter[str] = Counter()
    booked: set[str] = set()
    for booking in ledger.bookings:
        booked.update(t.name for t in booking.tensors)
        if booking.claim.how != "computed":
            counts = booking.claim.counts or tuple(t.tensor.numel() for t in booking.tensors)
            if len(counts) != len(booking.tensors):
                ledger.accuse(
                    booking.claim.layer, f"{len(counts)} counts are claimed for {len(booking.tensors)} tensors"
                )
                continue
            for held, count in zip(booking.tensors, counts, strict=True):
                shares[held.name] += count
    for held in {h.name: h for h in ledger.held.values()}.values():
        size = held.tensor.numel()
        if held.name in shares and shares[held.name] != size:
            word = "more than once" if shares[held.name] > size else "only in part"
            ledger.accuse(held.layer, f"{held.name} is in Keras {word} ({shares[held.name]:,} of {size:,})")
        elif held.name not in booked and unused.intersection(held.names):
            ledger.unused.append(held)
        elif held.name not in booked and (held.parameter or held.statistic):
            ledger.accuse(held.layer, f"{held.name} is nowhere in the Keras model")
        elif held.name not in booked:
            ledger.differences.append(_no_twin(held))


def _no_twin(held: Held) -> Difference:
    counter = held.name.endswith("num_batches_tracked")
    return Difference(
        kind="num_batches_tracked" if counter else "buffer",
        layers=(held.layer,),
        torch=f"{held.tensor.numel():,} elements",
        keras="none",
        effect=Effect.NOTHING,
        detail="a counter that inference does not read" if counter else "no variable: part of the function, or unused",
    )


def _all_variables_once(ledger: Ledger) -> None:
    times = Counter(id(b.variable) for b in ledger.bookings)
    owned = owners(ledger.model)
    known = {id(v) for v in ledger.variables}
    for variable in ledger.variables:
        path, _ = owned.get(id(variable), (variable.path, None))
        if times[id(variable)] == 0:
            ledger.accuse(
                path, f"the Keras variable {variable.name} ({_size(variable):,}) belongs to no PyTorch tensor"
            )
        elif times[id(variable)] > 1:
            ledger.accuse(path, f"the Keras variable {variable.name} is counted {times[id(variable)]} times")
    for booking in ledger.bookings:
        if id(booking.variable) not in known:
            ledger.accuse(booking.owner, f"{booking.claim.variable} is no weight of the Keras model")


def _sizes(ledger: Ledger) -> None:
    for booking in ledger.bookings:
        claim, size = booking.claim, _size(booking.variable)
        wanted = [t.tensor.numel() for t in booking.tensors]
        fits = {
            "same": size == sum(claim.counts or wanted) and bool(wanted),
            "sum": bool(wanted) and all(n == size for n in wanted),
            "constant": not wanted,
            "computed": bool(wanted),
        }
        if not fits[claim.how]:
            ledger.accuse(booking.owner, f"{claim.variable} has {size:,} elements, {claim.how} as {wanted} is claimed")


def _values(ledger: Ledger) -> None:
    """The numbers themselves, bit for bit in float32: those of a variable, in any order, are those of its tensors."""
    for group in _families([b for b in ledger.bookings if b.claim.how == "same" and b.tensors]):
        if len(group) == 1 and len(group[0].tensors) == 1 and _rearranged(group[0].variable, group[0].tensors[0]):
            continue
        got = np.concatenate([_flat(b.variable) for b in group])
        tensors = list({t.name: t for b in group for t in b.tensors}.values())
        want = np.concatenate([_torch_flat(t.tensor) for t in tensors])
        if got.size == want.size and not np.array_equal(np.sort(got), np.sort(want), equal_nan=got.dtype.kind == "f"):
            wrong = int((np.sort(got) != np.sort(want)).sum())
            for booking in group:
                why = f"{booking.claim.variable} does not hold the numbers of {', '.join(t.name for t in tensors)}"
                for layer in dict.fromkeys(t.layer for t in booking.tensors):
                    ledger.accuse(layer, f"{why} ({wrong:,} of {want.size:,} differ)")
    for booking in ledger.bookings:
        if booking.claim.how == "sum" and len({t.tensor.shape for t in booking.tensors}) == 1:
            total = np.sum([_torch_flat(t.tensor) for t in booking.tensors], axis=0, dtype=np.float32)
            if not np.array_equal(np.sort(total), np.sort(_flat(booking.variable))):
                names = " + ".join(t.name for t in booking.tensors)
                ledger.accuse(booking.tensors[0].layer, f"{booking.claim.variable} is not the sum {names}")


def _rearranged(variable: Any, held: Held) -> bool:
    """Whether the variable is the tensor with its axes in some order: the usual case, cheaper to see than to sort."""
    got, want = to_numpy(variable.value), held.tensor.detach().cpu()
    if got.dtype != np.float32 or want.dtype != torch.float32 or not want.ndim:
        return False
    for axes in permutations(range(want.ndim)):
        turned = want.numpy().transpose(axes)
        if turned.shape == got.shape and np.array_equal(got[:1], turned[:1]) and np.array_equal(got, turned):
            return True
    return False


def _families(bookings: Sequence[Booking]) -> list[list[Booking]]:
    """Bookings that share a tensor, directly or through others, belong together (one tensor cut into several)."""
    parent = list(range(len(bookings)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, booking in enumerate(bookings):
        for held in booking.tensors:
            parent[root(i)] = root(first.setdefault(held.name, i))
    groups: dict[int, list[Booking]] = {}
    for i, booking in enumerate(bookings):
        groups.setdefault(root(i), []).append(booking)
    return list(groups.values())


def _in_words(trainable: list[bool]) -> str:
    """What the tensors of a variable are together."""
    if not trainable:
        return "a constant"
    return "trainable" if all(trainable) else "frozen in part" if any(trainable) else "frozen"


def _trainable(ledger: Ledger) -> None:
    trainable = {id(v) for v in ledger.model.trainable_weights}
    for booking in ledger.bookings:
        on = id(booking.variable) in trainable
        wanted = [t.parameter and t.tensor.requires_grad for t in booking.tensors]
        if on == any(wanted) and (not on or all(wanted)):
            continue
        layer = booking.tensors[0].layer if booking.tensors else booking.owner
        ledger.differences.append(
            Difference(
                kind="trainable",
                layers=(layer,),
                torch=_in_words(wanted),
                keras="trainable" if on else "frozen",
                effect=Effect.TRAINING,
                fix=f"{booking.claim.variable}.trainable = {any(wanted)}",
                detail=booking.claim.variable,
            )
        )


def _gaps(ledger: Ledger) -> list[Gap]:
    """Why Keras' total is another one: each share with its layers; shares of nothing are left out."""
    shares: dict[str, tuple[int, dict[str, None]]] = {}

    def add(reason: str, count: int, layers: Iterable[str]) -> None:
        total, seen = shares.get(reason, (0, {}))
        shares[reason] = (total + count, {**seen, **dict.fromkeys(layers)})

    folded: dict[str, Held] = {}
    for booking in ledger.bookings:
        size, layers = _size(booking.variable), [t.layer for t in booking.tensors] or [booking.owner]
        parameters = sum(t.tensor.numel() for t in booking.tensors if t.parameter)
        if booking.claim.how == "constant":
            bias = booking.claim.variable.rpartition(".")[2] == "bias"
            add("biases that only Keras has" if bias else "constants kept as weights", size, layers)
        elif booking.claim.how == "sum":
            add("two biases in PyTorch, their sum in Keras", size - parameters, layers)
        elif booking.claim.how == "computed":
            add("weights folded together", size, layers)
            folded.update({t.name: t for t in booking.tensors if t.parameter})
        elif any(t.statistic for t in booking.tensors):
            add("BN moving statistics, counted by Keras", size, layers)
        else:
            add("buffers kept as weights", *_buffers(booking))
    for held in folded.values():
        add("weights folded together", -held.tensor.numel(), [held.layer])
    for held in ledger.unused:
        if held.parameter:
            add("parameters that inference does not use", -held.tensor.numel(), [held.layer])
    return [Gap(reason=r, count=n, layers=tuple(layers)) for r, (n, layers) in shares.items() if n]


def _buffers(booking: Booking) -> tuple[int, list[str]]:
    """How much of a variable is buffers in PyTorch, all of it or some pieces, and whose they are."""
    counts = booking.claim.counts or tuple(t.tensor.numel() for t in booking.tensors)
    found = [(n, t.layer) for n, t in zip(counts, booking.tensors, strict=False) if not t.parameter]
    return sum(n for n, _ in found), [layer for _, layer in found]


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape, dtype=np.int64))


def _flat(variable: Any) -> np.ndarray:
    array = to_numpy(variable.value).reshape(-1)
    return array.astype(np.float32) if array.dtype.kind in "fV" else array


def _torch_flat(tensor: torch.Tensor) -> np.ndarray:
    flat = tensor.detach().cpu().reshape(-1)
    array: np.ndarray = (flat.float() if flat.is_floating_point() else flat).numpy()
    return array
