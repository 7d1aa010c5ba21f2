"""Fold each BatchNormalization into the convolution or Dense layer before it, on request (`--fold`).

Given:   Conv2D(kernel) → BatchNormalization(gamma, beta, moving_mean, moving_variance)
Result:  Conv2D(kernel · s, (bias − moving_mean) · s + beta)    with s = gamma / sqrt(moving_variance + epsilon)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from translator.bindings import Fold, WeightBinding
from translator.plan.calls import Call, LayerCall, LayerSpec, ModuleCall, Plan, Ref, refs

_CONVOLUTIONS = frozenset({"Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A layer and the BatchNormalization that alone reads it."""

    layer: LayerSpec
    norm: LayerSpec
    call: LayerCall
    norm_call: LayerCall


def fold(plan: Plan) -> Plan:
    """The plan without the BatchNormalizations that could be folded; the others stay."""
    pairs = _pairs(plan)
    if not pairs:
        return plan
    gone = {pair.norm.name for pair in pairs}
    folded = {pair.layer.name: _folded(pair) for pair in pairs}
    renamed = {pair.norm_call.outputs[0]: pair.call.outputs[0] for pair in pairs}
    calls = [_renamed(c, renamed) for c in plan.calls if not (isinstance(c, LayerCall) and c.layer in gone)]
    values = {name: info for name, info in plan.values.items() if name not in renamed}
    return replace(
        plan,
        layers=tuple(folded.get(spec.name, spec) for spec in plan.layers if spec.name not in gone),
        calls=tuple(calls),
        values=values,
        outputs=tuple((name, renamed.get(value, value)) for name, value in plan.outputs),
        module_calls=tuple(_module_calls(plan, pairs, renamed)),
        notes=(*plan.notes, f"{len(pairs)} BatchNormalizations are folded into the layers before them, as asked"),
    )


def _pairs(plan: Plan) -> list[_Pair]:
    specs = {spec.name: spec for spec in plan.layers}
    times: dict[str, int] = {}
    readers: dict[str, int] = {value: 1 for _, value in plan.outputs}
    makers: dict[str, LayerCall] = {}
    for call in plan.calls:
        for arg in (*call.args, *call.kwargs.values()):
            for name in refs(arg):
                readers[name] = readers.get(name, 0) + 1
        if isinstance(call, LayerCall):
            times[call.layer] = times.get(call.layer, 0) + 1
            makers[call.outputs[0]] = call
    pairs = []
    for call in plan.calls:
        if not isinstance(call, LayerCall) or specs[call.layer].cls != "BatchNormalization":
            continue
        before = makers.get(next(refs(call.args[0]), ""))
        if before is None or specs[before.layer].cls not in _CONVOLUTIONS or times[before.layer] > 1:
            continue
        last = plan.values[before.outputs[0]].layout.axes[-1] == 1
        if times[call.layer] == 1 and readers[before.outputs[0]] == 1 and last:
            pairs.append(_Pair(layer=specs[before.layer], norm=specs[call.layer], call=before, norm_call=call))
    return pairs


def _folded(pair: _Pair) -> LayerSpec:
    spec, norm = pair.layer, {b.variable: b.pieces[0].tensor for b in pair.norm.bindings}
    own: Mapping[str, WeightBinding] = {b.variable: b for b in spec.bindings}
    fold = Fold(
        role="kernel",
        variance=norm["moving_variance"],
        mean=norm["moving_mean"],
        gamma=norm.get("gamma"),
        beta=norm.get("beta"),
        epsilon=float(pair.norm.config["epsilon"]),
        axes=2 if spec.cls.startswith("Depthwise") else 1,
    )
    kernel = own["kernel"]
    channels = math.prod(kernel.shape[-fold.axes :])
    bias = own.get("bias") or WeightBinding(variable="bias", shape=(channels,))
    bindings = (
        replace(kernel, fold=fold),
        replace(bias, fold=replace(fold, role="bias", axes=1)),
    )
    return replace(spec, config={**spec.config, "use_bias": True}, bindings=bindings)


def _renamed(call: Call, names: Mapping[str, str]) -> Call:
    def change(arg: object) -> object:
        if isinstance(arg, Ref):
            return Ref(names.get(arg.value, arg.value))
        if isinstance(arg, tuple | list):
            return type(arg)(change(a) for a in arg)
        return {k: change(v) for k, v in arg.items()} if isinstance(arg, dict) else arg

    args, kwargs = tuple(change(a) for a in call.args), {k: change(v) for k, v in call.kwargs.items()}
    return replace(call, args=args, kwargs=kwargs)


def _module_calls(plan: Plan, pairs: list[_Pair], renamed: Mapping[str, str]) -> list[ModuleCall]:
    """The norm's call now covers the call of the layer before it, and takes that one's inputs."""
    covered: dict[str, ModuleCall] = {}
    for pair in pairs:
        origin = pair.call.origin
        own = [m for m in plan.module_calls if (m.path, m.call) == (origin.module, origin.call)]
        if own and own[0].outputs == pair.call.outputs:
            covered[pair.norm_call.outputs[0]] = own[0]
    swallowed = {(m.path, m.call) for m in covered.values()}
    calls = []
    for m in plan.module_calls:
        if (m.path, m.call) in swallowed:
            continue
        before = next((covered[o] for o in m.outputs if o in covered and _is_norm(m, pairs)), None)
        if before is not None:
            m = replace(
                m, inputs=before.inputs, input_layouts=before.input_layouts, covers=((before.path, before.call),)
            )
        inputs, outputs = (tuple(renamed.get(v, v) for v in values) for values in (m.inputs, m.outputs))
        calls.append(replace(m, inputs=inputs, outputs=outputs))
    return calls


def _is_norm(module_call: ModuleCall, pairs: list[_Pair]) -> bool:
    return any(
        module_call.path == p.norm_call.origin.module and module_call.call == p.norm_call.origin.call for p in pairs
    )
