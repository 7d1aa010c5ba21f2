"""What is noted while a PyTorch model runs."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from translator.verify.torch_record import ModuleEvent, map_tensors, run, tensors_in

F64 = np.float64


class Listening:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool, list[float]]] = []

    def enter(self, event: ModuleEvent) -> bool:
        return True

    def leave(self, event: ModuleEvent, outputs: list[torch.Tensor]) -> dict[int, torch.Tensor]:
        self.seen.append((event.path, event.call, event.leaf, [float(t.flatten()[0]) for t in event.inputs]))
        return {0: outputs[0] + 100} if event.path == "first" else {}


def test_calls_are_seen_in_order_with_their_inputs_as_they_were() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu = nn.Identity(), nn.ReLU(inplace=True)
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.relu(self.first(x) - 200))

    heard = Listening()
    module = Twice().train()
    (result,) = run(module, (torch.ones(2),), {}, heard)
    assert heard.seen == [
        ("first", 0, True, [1.0]), ("relu", 0, True, [-99.0]), ("first", 1, True, [0.0]), ("", 0, False, [1.0]),
    ]  # fmt: skip
    assert result.tolist() == [100.0, 100.0]
    assert module.training
    assert not module.relu._forward_hooks


Point = namedtuple("Point", "x y")


@dataclass
class Boxed:
    inner: torch.Tensor
    name: str = "n"


def test_tensors_are_found_and_changed_in_any_structure() -> None:
    one = torch.ones(1)
    structure = {"a": [one, (one, None)], "p": Point(one, 3), "o": OrderedDict(k=one), "b": Boxed(one)}
    assert len(tensors_in(structure)) == 5
    changed = map_tensors(lambda t: t * 2, structure)
    assert [float(t) for t in tensors_in(changed)] == [2.0] * 5
    assert isinstance(changed["p"], Point)
    assert isinstance(changed["o"], OrderedDict)
    assert changed["b"] == Boxed(changed["b"].inner, "n")
