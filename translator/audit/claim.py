"""What the aligner found, as claims for the judge to test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from translator.audit.bind import Bound
from translator.audit.keras_network import KerasNetwork
from translator.audit.network import Network, Unit
from translator.audit.torch_network import ModuleCall, TorchNetwork
from translator.audit.values import Values
from translator.claims import Claims, ModuleClaim, ParameterClaim, ValueClaim
from translator.types import Layout
from translator.verify.facts import Pool

Key = tuple[str, int]


def claims_of(
    torch_side: TorchNetwork,
    keras_side: KerasNetwork,
    left: Network,
    pairs: Sequence[tuple[Unit, Unit]],
    values: Values,
    bound: Sequence[Bound],
) -> Claims:
    """Every module call whose result has a twin, the models' own inputs and outputs, and every variable."""
    say = _Sayer(keras_side, values)
    covers = {**_absorbed(left, torch_side.calls), **_never_negative(left, pairs)}
    held = {name for b in bound for name in b.tensors}
    covers = _with_inner(covers, torch_side.calls, [t for t, _ in pairs], say, held)
    silent = {key for covered in covers.values() for key in covered}
    modules = [
        claim
        for call in torch_side.calls
        if (call.path, call.call) not in silent and (claim := _module(call, torch_side.calls, covers, say)) is not None
    ]
    return Claims(
        inputs=tuple(c for number, layout in values.inputs if (c := say.number(number, layout)) is not None),
        outputs=tuple(c for number, layout in values.outputs if (c := say.number(number, layout)) is not None),
        modules=tuple(modules),
        parameters=tuple(parameter_claim(b) for b in bound),
        aliases=torch_side.aliases,
    )


class _Sayer:
    """Claims of single values."""

    def __init__(self, keras_side: KerasNetwork, values: Values) -> None:
        self._names, self._values = keras_side.names, values

    def value(self, value: int | None) -> ValueClaim | None:
        """The claim for a PyTorch value."""
        if value is None or value not in self._values.twins:
            return None
        return self.number(self._values.twins[value], self._values.layouts.get(value))

    def number(self, number: int, layout: Layout | None) -> ValueClaim | None:
        """The claim that a Keras value is PyTorch's, laid out so."""
        name = self._names.get(number)
        return ValueClaim(keras=name, layout=layout) if name is not None and layout is not None else None


def _module(
    call: ModuleCall, calls: Sequence[ModuleCall], covers: Mapping[Key, tuple[Key, ...]], say: _Sayer
) -> ModuleClaim | None:
    outputs = tuple(say.value(v) for v in call.outputs)
    if call.path == "" or not any(outputs):
        return None
    covered = covers.get((call.path, call.call), ())
    first = next((c for c in calls if covered and (c.path, c.call) == covered[0]), call)
    inputs = tuple(say.value(v) for v in first.inputs)
    return ModuleClaim(path=call.path, call=call.call, inputs=inputs, outputs=outputs, covers=covered)


def _absorbed(left: Network, calls: Sequence[ModuleCall]) -> dict[Key, tuple[Key, ...]]:
    """For a module call that stands for several: the earlier ones, where they are modules of their own.

    Parts that are written out in a forward have the call around them speak for them.
    """
    found: dict[Key, tuple[Key, ...]] = {}
    single = [c for c in calls if len(c.outputs) == 1]
    makes = {c.outputs[0]: (c.path, c.call) for c in reversed(single) if c.outputs[0] is not None}
    order = {(c.path, c.call): place for place, c in enumerate(calls)}
    for unit in left.units:
        if not unit.absorbed:
            continue
        last = makes.get(unit.outputs[0])
        parts = {(u.path, u.call) for u in (*unit.absorbed, unit) if u.module is not None} - {last}
        if last is not None and last[0] and parts:
            found[last] = tuple(sorted(parts, key=lambda key: order.get(key, 0)))
    return found


def _with_inner(
    covers: Mapping[Key, tuple[Key, ...]],
    calls: Sequence[ModuleCall],
    paired: Sequence[Unit],
    say: _Sayer,
    held: Collection[str],
) -> dict[Key, tuple[Key, ...]]:
    """A layer whose partner is a part of a Keras layer has no value there, nor has a table that is looked up at 0, 1,
    2 …: the call around it speaks for it, for a table the next one."""
    found = dict(covers)
    order = {(c.path, c.call): place for place, c in enumerate(calls)}
    spoken = {key for covered in covers.values() for key in covered}
    inner = {(u.path, u.call) for p in paired for u in (p, *p.absorbed)}
    inner |= {(c.path, c.call) for c in calls if _is_table(c, held)}
    for call in calls:
        key = (call.path, call.call)
        if not call.leaf or key not in inner or key in spoken or any(say.value(v) for v in call.outputs):
            continue
        table = _is_table(call, held)
        around = [
            c for c in calls[order[key] + 1 :]
            if c.path and (table or call.path.startswith(c.path + ".")) and any(say.value(v) for v in c.outputs)
        ]  # fmt: skip
        if around:
            outer = (around[0].path, around[0].call)
            found[outer] = tuple(sorted({*found.get(outer, ()), key}, key=lambda k: order[k]))
    return found


def _is_table(call: ModuleCall, held: Collection[str]) -> bool:
    """Whether a call reads nothing of the model's inputs, and its weights are in Keras all the same."""
    names = [f"{call.path}.{name}" for name, _ in call.module.named_parameters()]
    return call.leaf and not any(v is not None for v in call.outputs) and bool(names) and set(names) <= set(held)


def _never_negative(left: Network, pairs: Sequence[tuple[Unit, Unit]]) -> dict[Key, tuple[Key, ...]]:
    """A maximum padded with zeros is right only behind its ReLU: the two are judged as one."""
    made = {v: u for u in left.units for v in u.outputs}
    found: dict[Key, tuple[Key, ...]] = {}
    for t, k in pairs:
        want, got = t.facts, k.facts
        if not isinstance(want, Pool) or not isinstance(got, Pool) or want.windows is None or got.windows is None:
            continue
        if want.kind != "max" or want.windows.fill == got.windows.fill or t.module is None:
            continue
        before = made.get(next(left.sources(t.inputs[0])))
        while before is not None and before.module is None and before.inputs:
            before = made.get(next(left.sources(before.inputs[0])))
        if before is not None and before.module is not None:
            found[(t.path, t.call)] = ((before.path, before.call),)
    return found


def parameter_claim(bound: Bound) -> ParameterClaim:
    """What the judge is told about a variable."""
    layer, _, variable = bound.keras.name.rpartition("/")
    slot = bound.keras.slot
    if slot != variable:
        layer = bound.keras.name.removesuffix(f"/{slot}")
    counts: tuple[int, ...] = ()
    if bound.binding is not None and any(p.region for p in bound.binding.pieces):
        counts = tuple(_piece_size(p.region) for p in bound.binding.pieces if p.region)
    return ParameterClaim(layer=layer, variable=slot, tensors=_pieces(bound), how=bound.how, counts=counts)


def _pieces(bound: Bound) -> tuple[str, ...]:
    return tuple(p.tensor for p in bound.binding.pieces) if bound.binding is not None else bound.reads


def _piece_size(region: Sequence[tuple[int, int]]) -> int:
    size = 1
    for a, b in region:
        size *= b - a
    return size
