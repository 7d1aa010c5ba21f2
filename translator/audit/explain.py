"""Every difference between two aligned models in words: kind, layers, both values, what it changes, what mends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from translator.audit.align import Alignment, Pair
from translator.audit.folds import folded_norm
from translator.audit.gaps import STATISTICS
from translator.audit.network import Network, Unit
from translator.audit.unmatched import layer_name, unmatched
from translator.audit.wiring import wiring_differences
from translator.verdict import Balance, Difference, Effect
from translator.verify.compare_facts import Finding, compare
from translator.verify.configuration import as_difference, epsilon_folded, weight_findings
from translator.verify.facts import Activation, Conv, Facts, Pool
from translator.verify.keras_kinds import keras_class

_NONNEGATIVE = ("relu", "sigmoid", "softmax", "hard_sigmoid", "exponential", "softplus")
_SHOWN = 4
_IN_KERAS = "in Keras: "


def explain(
    alignment: Alignment,
    balance: Balance,
    *,
    initialisers: bool = True,
    weights_moved: bool = False,
    beyond: Effect = Effect.INFERENCE,
) -> list[Difference]:
    """All named differences, the same one in several layers once, in PyTorch's order.

    weights_moved: Keras has PyTorch's weights by now, so what only Keras has does nothing. beyond: what it means that
    PyTorch goes on where the Keras model ends.
    """
    found = [d for pair in alignment.pairs for d in _pair(pair, alignment, initialisers=initialisers)]
    made_up_for = {b.torch_layer for b in alignment.bound if b.how == "computed" and b.keras.end == "moving_variance"}
    found = [epsilon_folded(d) if d.kind == "epsilon" and made_up_for.issuperset(d.layers) else d for d in found]
    if weights_moved:
        found = [_without_effect(d) for d in found]
    found += wiring_differences(alignment)
    found += unmatched(alignment, beyond)
    found += _bookkeeping(alignment, balance)
    return _rates_joined(grouped(moved_strides(found, alignment)))


def _rates_joined(differences: list[Difference]) -> list[Difference]:
    """Paths that are dropped at a rate that rises from block to block, as one difference."""
    dropouts = [d for d in differences if d.kind == "dropout"]
    ours = [d for d in dropouts if d.keras == "none" and "noise_shape" in d.fix]
    theirs = [d for d in dropouts if d.torch == "none"]
    if len(ours) > 2:
        told = f"{len(ours)} rates, {ours[0].torch} to {ours[-1].torch}"
        fix = "Dropout(rate of the block, noise_shape=(None, 1, 1, 1))"
        differences = _as_one(differences, ours, replace(ours[0], torch=told, fix=fix))
    if len(theirs) > 2:
        told = f"{len(theirs)} rates, {theirs[0].keras} to {theirs[-1].keras}"
        differences = _as_one(differences, theirs, replace(theirs[0], keras=told, fix="take the layers out"))
    return differences


def _as_one(differences: list[Difference], members: list[Difference], one: Difference) -> list[Difference]:
    """The list with one difference, in the place of the first, for all of them."""
    one = replace(one, layers=tuple(layer for d in members for layer in d.layers))
    return [one if d is members[0] else d for d in differences if d is members[0] or d not in members]


def grouped(differences: Iterable[Difference]) -> list[Difference]:
    """The same difference in several layers, once, with all of them; details are joined."""
    groups: dict[Difference, list[Difference]] = {}
    for d in differences:
        groups.setdefault(replace(d, layers=(), detail=""), []).append(d)
    rows = []
    for shared, members in groups.items():
        layers = tuple(dict.fromkeys(layer for d in members for layer in d.layers))
        names = [d.detail.removeprefix(_IN_KERAS) for d in members if d.detail.startswith(_IN_KERAS)]
        details = [d.detail for d in members if d.detail and not d.detail.startswith(_IN_KERAS)]
        parts = [_few(details, "; "), *([_IN_KERAS + _few(names, ", ")] if names else [])]
        rows.append(replace(shared, layers=layers, detail="; ".join(p for p in parts if p)))
    return rows


def _few(texts: Iterable[str], separator: str) -> str:
    found = list(dict.fromkeys(texts))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return separator.join(found[:_SHOWN]) + more


def _pair(pair: Pair, alignment: Alignment, *, initialisers: bool) -> Iterator[Difference]:
    t, k = pair.torch, pair.keras
    if _said_before(pair, alignment):
        return
    operation = k.operations[-1] if k.operations else None
    layer = keras_class(operation) if operation is not None else ""
    findings: list[Finding] = []
    if t.facts is not None and k.facts is not None:
        read = t.inputs[0] if t.inputs else None
        nonnegative = read is not None and is_nonnegative(alignment.left, read)
        findings += compare(t.facts, _as_read(t.facts, k.facts, t), layer=layer, nonnegative=nonnegative)
    elif t.kind != k.kind and "join" not in (t.kind, k.kind):
        findings.append(Finding(kind="kind", torch=t.kind, keras=k.kind, effect=Effect.INFERENCE))
    if folded_norm(t) is not None:
        findings = [f for f in findings if f.kind not in ("conv-bias", "dense-bias")]
        findings.append(_folded(layer))
    if t.module is not None and operation is not None and t.weights and k.weights:
        findings += weight_findings(t.module, operation, initialisers=initialisers)
    for finding in findings:
        yield _with_keras_name(as_difference(finding, (layer_name(t),)), k)


def _with_keras_name(difference: Difference, k: Unit) -> Difference:
    return replace(difference, detail=difference.detail or _IN_KERAS + k.path)


def _said_before(pair: Pair, alignment: Alignment) -> bool:
    """Whether an earlier call of the same two layers speaks for this one."""
    t, k = pair.torch, pair.keras
    if t.module is None or t.call == 0:
        return False
    same = (p for p in alignment.pairs if p.torch.path == t.path and p.keras.path == k.path and p.torch.kind == t.kind)
    return any(p.torch.call < t.call for p in same)


def _as_read(want: Facts, got: Facts, t: Unit) -> Facts:
    """Keras' facts where they can be put as PyTorch's: a window over the whole image is a global pooling."""
    if isinstance(want, Pool) and isinstance(got, Pool) and want.windows is None and got.windows is not None:
        counts = got.windows.counts()
        if counts is not None and set(counts) == {1} and got.windows.kernel == got.windows.sizes:
            return replace(got, windows=None, output=(1,) * len(counts))
    if isinstance(want, Conv) and isinstance(got, Conv) and folded_norm(t) is not None:
        return replace(got, bias=want.bias)
    return got


def _folded(layer: str) -> Finding:
    return Finding(
        kind="bn-folded", torch="BatchNorm", keras="folded into the kernel and bias before it", effect=Effect.TRAINING,
        fix=f"{layer}(use_bias=False), then BatchNormalization",
        detail="the same function in inference; nothing is normalised in training",
    )  # fmt: skip


def is_nonnegative(network: Network, value: int) -> bool:
    """Whether a value can't be below zero: it comes from a ReLU or a sigmoid, at most through a maximum."""
    made = {v: u for u in network.units for v in u.outputs}
    sources = list(network.sources(value))
    for source in sources:
        unit = made.get(source)
        if unit is None:
            return False
        facts = unit.facts
        if isinstance(facts, Activation) and (facts.name in _NONNEGATIVE or dict(facts.settings).get("min") == 0.0):
            continue
        if (isinstance(facts, Pool) or unit.kind == "dropout") and is_nonnegative(network, unit.inputs[0]):
            continue
        return False
    return bool(sources)


_ONE_SIDED = ("conv-bias", "dense-bias", "attention-bias", "norm-scale", "norm-centre")


def _without_effect(d: Difference) -> Difference:
    only_keras = d.kind in _ONE_SIDED and d.torch == "none"
    return replace(d, effect=Effect.TRAINING) if only_keras and d.effect is Effect.INFERENCE else d


def _bookkeeping(alignment: Alignment, balance: Balance) -> Iterator[Difference]:
    for gap in balance.gaps:
        if gap.reason == STATISTICS:
            yield Difference(
                kind="bn-statistics", layers=gap.layers, torch="buffers", keras="counted as non-trainable weights",
                effect=Effect.NOTHING, detail=f"{gap.count:+,} in the count, not in what is trained"
            )  # fmt: skip
        if gap.reason.startswith("tied in"):
            yield Difference(
                kind="tied-weights", layers=gap.layers, torch="one tensor", keras="separate variables",
                effect=Effect.TRAINING, fix="call one layer twice, or share its variable",
            )  # fmt: skip
        if gap.reason == "parameters that inference does not use":
            yield Difference(
                kind="unused in inference", layers=gap.layers, torch=f"{-gap.count:,} parameters", keras="none",
                effect=Effect.TRAINING, detail="no call in evaluation mode reads them",
            )  # fmt: skip
    counters = [n for n in alignment.unbound if n.endswith("num_batches_tracked")]
    if counters:
        yield Difference(
            kind="num_batches_tracked", layers=tuple(n.rpartition(".")[0] for n in counters),
            torch=f"{len(counters):,} counters", keras="none", effect=Effect.NOTHING,
            detail="a counter that inference does not read",
        )  # fmt: skip
    for value in sorted(alignment.values.reordered):
        for unit in alignment.left.units:
            if value in unit.inputs:
                yield Difference(
                    kind="flatten-order", layers=(layer_name(unit),), torch="channels, rows, columns",
                    keras="rows, columns, channels", effect=Effect.NOTHING,
                    detail="the rows of the kernel are permuted when weights are moved",
                )  # fmt: skip


def moved_strides(differences: Sequence[Difference], alignment: Alignment) -> list[Difference]:
    """Two neighbours of which one has the stride here and the other there, as one difference."""
    strides = [d for d in differences if d.kind == "stride"]
    rest = [d for d in differences if d.kind != "stride"]
    order = {layer_name(u): u.index for u in alignment.left.units}
    strides.sort(key=lambda d: order.get(d.layers[0], 0))
    found: list[Difference] = []
    while strides:
        first = strides.pop(0)
        other = next(
            (d for d in strides if (d.torch, d.keras) == (first.keras, first.torch) and _near(first, d)), None
        )  # fmt: skip
        if other is None:
            found.append(first)
            continue
        strides.remove(other)
        here, there = (other, first) if other.torch > first.torch else (first, other)
        found.append(
            Difference(
                kind="stride-placement",
                layers=(here.layers[0], there.layers[0]),
                torch=f"in {_leaf(here.layers[0])}",
                keras=f"in {_leaf(there.layers[0])}",
                effect=Effect.INFERENCE,
                fix=f"strides={_short(there.torch)} in one and strides={_short(here.torch)} in the other",
                detail=f"{there.detail} has it, {here.detail.removeprefix(_IN_KERAS)} should",
            )
        )
    return [*rest, *found]


def _near(a: Difference, b: Difference) -> bool:
    return a.layers[0].rpartition(".")[0] == b.layers[0].rpartition(".")[0] or not a.layers[0].count(".")


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _short(text: str) -> str:
    parts = text.split("×")
    return parts[0] if len(set(parts)) == 1 else f"({', '.join(parts)})"
