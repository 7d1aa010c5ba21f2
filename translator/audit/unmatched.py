"""What has no partner on the other side: which layers, what that changes, and the Keras code that puts it right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from translator.audit.align import Alignment
from translator.audit.network import Network, Unit
from translator.verdict import Difference, Effect
from translator.verify.compare_facts import kind_text
from translator.verify.facts import (
    Activation,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Norm,
    Padding,
    Pool,
    Preprocessing,
    Presence,
)

_HEADS = ("softmax", "sigmoid", "log_softmax", "log_sigmoid")


def unmatched(alignment: Alignment, beyond: Effect = Effect.INFERENCE) -> Iterator[Difference]:
    """A difference for every unit without a partner. beyond: what those behind the end of the Keras model mean."""
    needed = _needed(alignment.left)
    left_out = [u for u in alignment.torch_only if u.index not in needed]
    behind = [u for u in left_out if not isinstance(u.facts, Dropout)]
    if behind:
        yield Difference(
            kind="head-left-out", layers=tuple(dict.fromkeys(layer_name(u) for u in behind)),
            torch=", ".join(what(u) for u in behind), keras="none: the model ends before", effect=beyond,
            fix="; ".join(keras_code(u) for u in behind if keras_code(u)),
        )  # fmt: skip
    for unit in alignment.torch_only:
        if unit not in left_out and not _does_nothing(unit):
            yield _missing(unit, alignment.left)
    for unit in alignment.keras_only:
        if not _does_nothing(unit):
            yield _extra(unit, alignment.right)


def _does_nothing(unit: Unit) -> bool:
    return isinstance(unit.facts, Dropout) and unit.facts.rate == 0


def _needed(network: Network) -> set[int]:
    """Units that the network's outputs depend on, dropouts among them."""
    dropouts = {v for u in network.units if isinstance(u.facts, Dropout) for v in u.outputs}
    network = replace(network, past={v: sources for v, sources in network.past.items() if v not in dropouts})
    made, wiring = network.producers(), network.wiring()
    found: set[int] = set()
    stack = [made[s] for value in network.outputs for s in network.sources(value) if s in made]
    while stack:
        unit = stack.pop()
        if unit not in found:
            found.add(unit)
            stack.extend(s for s in wiring[unit] if s >= 0)
    return found


def layer_name(unit: Unit) -> str:
    """The layer a unit belongs to, as people know it."""
    return unit.path or "(model)"


def _missing(unit: Unit, network: Network) -> Difference:
    facts, name = unit.facts, layer_name(unit)
    if isinstance(facts, Dropout):
        return Difference(
            kind="dropout", layers=(name,), torch=f"{facts.rate:g}", keras="none", effect=Effect.TRAINING,
            fix=keras_code(unit),
        )  # fmt: skip
    if is_head(unit, network):
        return Difference(
            kind="head", layers=(name,), torch=what(unit), keras="none", effect=Effect.INFERENCE, fix=keras_code(unit)
        )
    kind = "missing-activation" if isinstance(facts, Activation) else "missing-layer"
    return Difference(
        kind=kind, layers=(name,), torch=what(unit), keras="none", effect=Effect.INFERENCE, fix=keras_code(unit)
    )


def _extra(unit: Unit, network: Network) -> Difference:
    facts, name = unit.facts, layer_name(unit)
    if isinstance(facts, Dropout):
        return Difference(
            kind="dropout", layers=(name,), torch="none", keras=f"{facts.rate:g}", effect=Effect.TRAINING,
            fix="take the layer out",
        )  # fmt: skip
    if isinstance(facts, Preprocessing):
        return Difference(
            kind="preprocessing", layers=(name,), torch="none", keras=f"{facts.name}({facts.settings})",
            effect=Effect.INFERENCE, fix="take the layer out, or feed PyTorch what it makes",
        )  # fmt: skip
    if is_head(unit, network) and isinstance(facts, Activation):
        fix = "activation=None, and from_logits=True in the loss"
        return Difference(
            kind="head", layers=(name,), torch="logits", keras=facts.text(), effect=Effect.INFERENCE, fix=fix
        )
    kind = "extra-activation" if isinstance(facts, Activation) else "extra-layer"
    fix = "activation=None" if unit.text.startswith("activation of") else "take the layer out"
    return Difference(kind=kind, layers=(name,), torch="none", keras=what(unit), effect=Effect.INFERENCE, fix=fix)


def is_head(unit: Unit, network: Network) -> bool:
    """Whether it is an activation that makes probabilities and puts them out."""
    results = {s for value in network.outputs for s in network.sources(value)}
    facts = unit.facts
    return isinstance(facts, Activation) and facts.name in _HEADS and bool(results.intersection(unit.outputs))


def what(unit: Unit) -> str:
    """What a unit is, in words."""
    if unit.facts is not None:
        return kind_text(unit.facts)
    return "a weight of its own" if unit.kind == "constant" else unit.kind


def keras_code(unit: Unit) -> str:
    """The Keras layer that does what PyTorch's unit does; "" where one line can't say it."""
    match unit.facts:
        case Conv(transposed=False, windows=windows, filters=filters, bias=bias, groups=groups, channels=channels):
            rank = len(windows.kernel)
            bias_text = "" if bias is not Presence.NONE else ", use_bias=False"
            settings = f"strides={windows.stride}{bias_text}"
            padded = windows.padding and any(n for pair in windows.padding for n in pair)
            front = f"ZeroPadding{rank}D({windows.padding}), " if padded else ""
            if groups == channels > 1:
                return f"{front}DepthwiseConv{rank}D({windows.kernel}, {settings})"
            more = f", groups={groups}" if groups > 1 else ""
            return f"{front}Conv{rank}D({filters}, {windows.kernel}, {settings}{more})"
        case Dense(units=units, bias=bias):
            return f"Dense({units}{'' if bias is not Presence.NONE else ', use_bias=False'})"
        case Norm(kind="batch", epsilon=epsilon, momentum=momentum):
            kept = f", momentum={round(momentum, 12)!r}" if momentum is not None and momentum >= 0 else ""
            return f"BatchNormalization(epsilon={epsilon!r}{kept})"
        case Norm(kind="layer", epsilon=epsilon):
            return f"LayerNormalization(epsilon={epsilon!r})"
        case Norm(kind="group", epsilon=epsilon, groups=groups):
            return f"GroupNormalization({groups}, epsilon={epsilon!r})"
        case Embedding(rows=rows, width=width):
            return f"Embedding({rows}, {width})"
        case Activation():
            return _activation_code(unit.facts)
        case Dropout(rate=rate, kind="channel"):
            return f"SpatialDropout2D({rate:g})"
        case Dropout(rate=rate, kind="path"):
            return f"Dropout({rate:g}, noise_shape=(None, 1, 1, 1))"
        case Dropout(rate=rate):
            return f"Dropout({rate:g})"
        case Pool(kind=kind, windows=None):
            return f"Global{'Max' if kind == 'max' else 'Average'}Pooling2D()"
        case Pool(kind=kind, windows=windows) if windows is not None:
            name = f"{'Max' if kind == 'max' else 'Average'}Pooling{len(windows.kernel)}D"
            return f"{name}({windows.kernel}, strides={windows.stride})"
        case Padding(pads=pads):
            return f"ZeroPadding{len(pads)}D({pads})"
    return {"add": "add([…])", "mul": "multiply([…])", "concat": "concatenate([…])"}.get(unit.kind, "")


def _activation_code(facts: Activation) -> str:
    settings = dict(facts.settings)
    if facts.name == "clip":
        low, high = settings.get("min"), settings.get("max")
        return f"ReLU({high:g})" if low == 0 else f"ops.clip(x, {low:g}, {high:g})"
    if facts.name == "leaky_relu":
        return f"LeakyReLU({settings['negative_slope']:g})"
    if facts.name == "gelu":
        return f"ops.gelu(x, approximate={settings['approximate']})"
    return f'Activation("{facts.name}")'
