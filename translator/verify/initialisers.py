"""What fresh weights are drawn from: read off the tensor on PyTorch's side, off the configuration on Keras' side.

A PyTorch module does not remember its initialiser, and models often redraw their weights; so a distribution is named
only where the numbers in the tensor bear it out, and nothing is said of a trained tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from translator.verdict import Effect
from translator.verify.compare_facts import Finding

_ENOUGH = 64
"""Fewer numbers than this say nothing about a distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialiser:
    """A distribution with mean 0. kind: uniform, normal or truncated. scale, mode: as Keras' VarianceScaling."""

    name: str
    kind: str
    scale: float
    mode: str

    def fix(self) -> str:
        """The Keras code for it."""
        kind = {"normal": "untruncated_normal", "truncated": "truncated_normal"}.get(self.kind, self.kind)
        scale = "1/3" if math.isclose(self.scale, 1 / 3) else f"{self.scale:g}"
        return f'kernel_initializer=VarianceScaling({scale}, "{self.mode}", "{kind}")'


_KNOWN = (
    Initialiser(name="kaiming_uniform(a=√5)", kind="uniform", scale=1 / 3, mode="fan_in"),
    Initialiser(name="kaiming_uniform", kind="uniform", scale=2.0, mode="fan_in"),
    Initialiser(name="kaiming_normal(fan_out)", kind="normal", scale=2.0, mode="fan_out"),
    Initialiser(name="kaiming_normal(fan_in)", kind="normal", scale=2.0, mode="fan_in"),
    Initialiser(name="xavier_uniform", kind="uniform", scale=1.0, mode="fan_avg"),
    Initialiser(name="xavier_normal", kind="normal", scale=1.0, mode="fan_avg"),
)

_KERAS = {
    "GlorotUniform": _KNOWN[4], "GlorotNormal": Initialiser(name="", kind="truncated", scale=1.0, mode="fan_avg"),
    "HeUniform": _KNOWN[1], "HeNormal": Initialiser(name="", kind="truncated", scale=2.0, mode="fan_in"),
    "LecunUniform": Initialiser(name="", kind="uniform", scale=1.0, mode="fan_in"),
    "LecunNormal": Initialiser(name="", kind="truncated", scale=1.0, mode="fan_in"),
}  # fmt: skip


def initialiser_findings(module: Any, operation: Any) -> Iterator[Finding]:
    """A finding where the kernel's distribution is recognised on both sides and differs."""
    weight, keras = getattr(module, "weight", None), _keras_initialiser(operation)
    if weight is None or weight.ndim < 2 or keras is None:
        return
    torch = torch_initialiser(weight)
    text, settings = keras
    if torch is None or (
        settings is not None and settings.kind == torch.kind and _same_spread(torch, settings, weight)
    ):
        return
    yield Finding(kind="initialiser", torch=torch.name, keras=text, effect=Effect.TRAINING, fix=torch.fix())


def _same_spread(a: Initialiser, b: Initialiser, weight: Any) -> bool:
    fans = _fans(weight)
    return math.isclose(a.scale / fans[a.mode], b.scale / fans[b.mode])


def _fans(weight: Any) -> dict[str, float]:
    field = math.prod(weight.shape[2:])
    fans = {"fan_in": float(weight.shape[1] * field), "fan_out": float(weight.shape[0] * field)}
    return {**fans, "fan_avg": (fans["fan_in"] + fans["fan_out"]) / 2}


def torch_initialiser(weight: Any) -> Initialiser | None:
    """The distribution that a weight (O, I/groups, *K) bears out, None for trained, constant or few numbers."""
    if weight.numel() < _ENOUGH or weight.device.type == "meta":
        return None
    values = weight.detach().double()
    std, largest = float(values.std()), float(values.abs().max())
    slack = 4.0 / math.sqrt(2 * weight.numel())
    fans = _fans(weight)
    for known in _KNOWN:
        want = math.sqrt(known.scale / fans[known.mode])
        if abs(std / want - 1) > slack:
            continue
        bound = math.sqrt(3) * want
        inside = largest <= bound * (1 + 1e-6)
        if inside if known.kind == "uniform" else not inside:
            return known
    return None


def _keras_initialiser(operation: Any) -> tuple[str, Initialiser | None] | None:
    found = getattr(operation, "kernel_initializer", None) or getattr(operation, "depthwise_initializer", None)
    if found is None:
        return None
    name = type(found).__name__
    text = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    if name == "VarianceScaling":
        kind = {"untruncated_normal": "normal", "truncated_normal": "truncated"}.get(found.distribution, "uniform")
        return text, Initialiser(name=text, kind=kind, scale=float(found.scale), mode=str(found.mode))
    return text, _KERAS.get(name)
