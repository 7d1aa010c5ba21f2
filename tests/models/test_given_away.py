"""What a module hands to others besides its output, or keeps between calls: attributes, hooks, tables by lru_cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import nn

import translator
from translator.verdict import Verdict
from translator.verify.probes import _try as asked

pytestmark = pytest.mark.model


class Attending(nn.Module):
    """Attention that leaves its weights in an attribute, for others to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weights = (self.query(x) @ x.mT).softmax(-1)
        return self.weights @ self.value(x)


class WeightsPutOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.block = Attending(), nn.Sequential(Attending(), nn.LayerNorm(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.block(self.first(x))
        return self.head(y), self.first.weights, self.block[0].weights.mean(1)  # type: ignore[operator, union-attr]


class FeaturesByHooks(nn.Module):
    """Features that hooks collect inside of another module, whose own output is read, or isn't."""

    def __init__(self, *, output_read: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh())
        self.head, self.output_read = nn.Linear(12, 3), output_read
        self.features: dict[int, torch.Tensor] = {}
        for place in (0, 2):
            self.body[place].register_forward_hook(lambda _, __, y, place=place: self.features.update({place: y}))

    def forward(self, x: torch.Tensor) -> Any:
        y = self.body(x)
        found = self.head(torch.cat([self.features[0], self.features[2]], -1))
        return (found, y) if self.output_read else found


class Kept(nn.Module):
    """No tensors of its own: its one attribute is what others read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.grown = x.exp()
        return self.grown + x


class ReadsWhatIsKept(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept, self.head = Kept(), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.kept(x) * self.kept.grown)
        return y


@lru_cache(maxsize=8)
def centres(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Thirds and sevenths, which no float holds exactly."""
    return (torch.arange(0.5, count, dtype=dtype) / count) * 2 - 1


class ReadsATable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cos(2 * math.pi * centres(7)) * self.linear(x)


class Places(nn.Module):
    """A module that takes no tensor and holds none: its output is the same whatever comes in."""

    def forward(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.arange(count, dtype=dtype)[None] / count


class AddsPlaces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.places = nn.Linear(7, 7), Places()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x)
        return y + self.places(7, y.dtype)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attributes put out": (WeightsPutOut, (2, 5, 6)),
    "features by hooks": (lambda: FeaturesByHooks(output_read=True), (2, 6)),
    "features by hooks alone": (lambda: FeaturesByHooks(output_read=False), (2, 6)),
    "an attribute of a module without tensors": (ReadsWhatIsKept, (2, 6)),
    "a table that a function keeps": (ReadsATable, (2, 7)),
    "a module without tensors": (AddsPlaces, (2, 7)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_modules_give_away_or_keep_is_proven(name: str) -> None:
    make, shape = NETWORKS[name]
    module, x = make().eval(), torch.randn(shape)
    done = translator.convert(module, x)
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert done.report.balance.unexplained == 0
    results = module(x)
    assert all(t.dtype is torch.float32 for t in (results if isinstance(results, tuple) else (results,)))


class KeptInMany(nn.Module):
    """Leaves what it made in an attribute, in a list and in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[torch.Tensor] = []
        self.table: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = x.exp()
        self.all.append(self.last)
        self.table["last"] = self.last
        return self.last + x


def test_a_probe_leaves_what_the_models_own_call_left() -> None:
    module, x = KeptInMany(), torch.randn(2, 6)
    module(x)
    own = module.last
    (other,) = asked(module, (x + 1,), {}) or []
    torch.testing.assert_close(other, (x + 1).exp() + x + 1)
    assert module.last is own
    assert [id(t) for t in module.all] == [id(own)]
    assert module.table["last"] is own
