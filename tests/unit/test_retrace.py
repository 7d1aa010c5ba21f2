"""Programs that are rewritten are what PyTorch's own second trace makes of them, and others are traced again.

Shown to be wrong by: a graph with another node, setting, type, shape or origin than PyTorch's; a value that is read
after something else in its memory was written; planted: no heed of what lies in one memory, or of types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.retraces import both
from translator.capture import retrace, rewrites


class Net(nn.Module):
    """A function with a few layers at hand."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("kept", torch.ones(4))
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        """Whatever it was made of."""
        return self._forward(self, x)


X = torch.randn(2, 4, 6, 5)

REWRITTEN: dict[str, Callable[[Any, Tensor], Any]] = {
    "a ReLU in place": lambda m, x: functional.relu(m.norm(m.conv(x)), inplace=True),
    "a sum in place": lambda m, x: m.conv(x).add_(x, alpha=2),
    "in place twice": lambda m, x: m.conv(x).relu_().mul_(2.0),
    "the value by its old name": lambda m, x: _then(y := m.conv(x), y.relu_(), y + x),
    "read before it is written": lambda m, x: _then(y := m.conv(x), z := m.conv(y), y.relu_(), y + z),
    "an output by its old name": lambda m, x: _then(y := m.conv(x), y.relu_(), (y, m.conv(y))),
    "a clamp in place": lambda m, x: functional.hardtanh(m.conv(x), 0.5, 6.0, inplace=True),
    "a flatten": lambda m, x: m.conv(x).flatten(1),
    "a flatten of what is no view": lambda m, x: m.conv(x).transpose(1, 2).flatten(2),
    "a flatten after another use of the batch": lambda m, x: m.conv(x).view(x.shape[0], 4, -1).flatten(1),
    "a flatten of what is flat": lambda m, x: m.linear(m.conv(x).mean((2, 3)).flatten(1)),
    "a reshape": lambda m, x: m.conv(x).reshape(x.shape[0], -1, 5),
    "a reshape that copies": lambda m, x: m.conv(x).permute(0, 2, 3, 1).reshape(x.shape[0], 30, 4),
    "contiguous": lambda m, x: m.linear(m.conv(x).permute(0, 2, 3, 1).contiguous()).contiguous(),
    "contiguous in order to be viewed": lambda m, x: m.conv(x).transpose(1, 2).contiguous().view(x.shape[0], -1, 5),
    "contiguous already": lambda m, x: m.conv(x).contiguous().relu_(),
    "contiguous as an output": lambda m, x: _then(y := m.conv(x), (y.contiguous(), m.conv(y))),
    "flat as an output": lambda m, x: m.conv(x).mean((2, 3)).flatten(1),
    "chunks": lambda m, x: sum(m.conv(x).chunk(2, 1)),
    "chunks of other sizes": lambda m, x: m.conv(x).chunk(3, dim=-1)[1],
    "what nobody reads": lambda m, x: _then(m.conv(x), m.norm(x)),
    "a dropout": lambda m, x: functional.dropout2d(m.conv(x), 0.3, inplace=True).relu_(),
    "a list": lambda m, x: torch.cat([m.conv(x), x, m.norm(x)], 1),
}

TRACED_AGAIN: dict[str, Callable[[Any, Tensor], Any]] = {
    "the input is written": lambda m, x: x.relu_() + 1,
    "a view of the input is written": lambda m, x: _then(x.flatten(1).relu_(), x + 1),
    "a buffer is written": lambda m, x: m.kept.clone().add_(1) + m.kept.mul_(1.0)[0] + x[0, 0, 0, 0],
    "a part is written": lambda m, x: _then(y := m.conv(x), y[:, :2].relu_(), y),
    "the base is read after a view is written": lambda m, x: _then(y := m.conv(x), y.flatten(1).relu_(), y),
    "a view is read after its base is written": lambda m, x: _then(y := m.conv(x), v := y.flatten(1), y.relu_(), v),
    "an eval dropout is another name": lambda m, x: _then(
        y := m.conv(x), z := torch.dropout(y, 0.5, train=False), y.relu_(), z
    ),
    "an einsum that is a view": lambda m, x: _then(y := m.conv(x), z := torch.einsum("bchw->bwhc", y), y.relu_(), z),
    "a filled part": lambda m, x: _then(y := m.conv(x), y[:, 0].fill_(0.5), y),
    "a sum of another type in place": lambda m, x: m.conv(x).add_(torch.ones_like(x, dtype=torch.float64)),
    "batch statistics": lambda m, x: functional.batch_norm(x, None, None, training=True),
    "a flatten with the batch": lambda m, x: m.linear(m.conv(x).permute(0, 2, 3, 1).flatten(0, 2)),
    "a convolution with the same padding": lambda m, x: functional.conv2d(x, m.conv.weight, padding="same"),
    "an operation that is composed of others": lambda m, x: functional.softshrink(m.conv(x)),
}


def _then(*values: Any) -> Any:
    """The last of some steps."""
    return values[-1]


WRITTEN_UNDER_ANOTHER_NAME = [
    "a part is written",
    "the base is read after a view is written",
    "a view is read after its base is written",
    "an einsum that is a view",
]


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_can_be_written_down_is_not_traced_again(name: str) -> None:
    found = both(Net(REWRITTEN[name]).eval(), X)
    assert found.spared
    assert found.ours == found.pytorchs


@pytest.mark.parametrize("name", TRACED_AGAIN)
def test_what_PyTorch_must_run_is_traced_again(name: str) -> None:  # noqa: N802
    found = both(Net(TRACED_AGAIN[name]).eval(), X.clone())
    assert not found.spared
    assert found.ours == found.pytorchs


@pytest.mark.parametrize("name", WRITTEN_UNDER_ANOTHER_NAME)
def test_planted_operations_in_place_made_functions_whatever_lies_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These tests see it: without heed of memories the graph computes something else."""
    monkeypatch.setattr(retrace, "function_of", lambda node, values: rewrites._namesake(node.target))
    net = Net(TRACED_AGAIN[name]).eval()
    program = rewritten(net, X)
    assert program is not None
    assert not torch.equal(program.module()(X), net(X))


def test_planted_operations_in_place_made_functions_whatever_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrites, "_of_one_type", lambda node: True)
    net = Net(TRACED_AGAIN["a sum of another type in place"]).eval()
    program = rewritten(net, X)
    assert program is not None
    assert (program.module()(X).dtype, net(X).dtype) == (torch.float64, torch.float32)


def test_the_exporters_table_is_built_once() -> None:
    """By whoever asks for it: the exporter, and who looks up what it translates."""
    both(Net(REWRITTEN["a ReLU in place"]).eval(), X)
    both(Net(TRACED_AGAIN["batch statistics"]).eval(), X)
    assert retrace._registry.cache_info().misses == 1


STEPS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda a, b: a.sin(),
    lambda a, b: a + b,
    lambda a, b: a.transpose(1, 2),
    lambda a, b: a.reshape(a.shape[0], 4, 4),
    lambda a, b: a.contiguous(),
    lambda a, b: a.flatten(1).view(a.shape[0], 4, 4) if a.is_contiguous() else a.cos(),
    lambda a, b: a.relu_(),
    lambda a, b: a.add_(b),
    lambda a, b: a.mul_(2.0),
    lambda a, b: a[:, :2].neg_().repeat(1, 2, 1),
    lambda a, b: torch.dropout(a, 0.5, train=False),
)  # fmt: skip


class Steps(nn.Module):
    """Some of STEPS, each on two of the values so far; puts out what is asked for of them at the end."""

    def __init__(self, steps: Sequence[tuple[int, int, int]], outputs: Sequence[int]) -> None:
        super().__init__()
        self._steps, self._outputs = steps, outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (B, 4, 4)."""
        values = [x.cos()]
        for step, first, second in self._steps:
            values.append(STEPS[step](values[first % len(values)], values[second % len(values)]))
        return [values[place % len(values)].clone() for place in self._outputs]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 9), st.integers(0, 9)), max_size=9),
    outputs=st.lists(st.integers(0, 9), min_size=1, max_size=3),
)
def test_rewritten_programs_compute_what_the_module_does(steps: list[tuple[int, int, int]], outputs: list[int]) -> None:
    net, x = Steps(steps, outputs), torch.randn(2, 4, 4)
    program = rewritten(net, x)
    if program is not None:
        assert all(torch.equal(*pair) for pair in zip(program.module()(x), net(x), strict=True))
        assert not any(n.op == "call_function" and n.target._schema.is_mutable for n in program.graph.nodes)


def rewritten(net: nn.Module, x: Tensor) -> Any:
    """The traced program, rewritten; None where it would be traced again."""
    with torch.no_grad():
        program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)
    return program if retrace.sparing(program).run_decompositions({}) is program else None


def test_a_view_that_is_written_is_one_step_less() -> None:
    """PyTorch writes the result back into the view's base, which nobody reads any more."""
    net = Net(lambda m, x: m.conv(x).flatten(2).relu_()).eval()
    program = rewritten(net, X)
    assert [node.target for node in program.graph.nodes][-3:-1] == [
        torch.ops.aten.view.default,
        torch.ops.aten.relu.default,
    ]
    assert torch.equal(program.module()(X), net(X))
