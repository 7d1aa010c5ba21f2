"""Where a node of a trace comes from, where the exporter has made it anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch.ops import aten

from translator.capture.origins import view_stacks


def node(name: str, inside: str, line: int, *reads: Any) -> Any:
    stack = {f"L__self__{inside}": (inside, "Block")} if inside else {}
    meta = {"nn_module_stack": stack, "stack_trace": f'File "net.py", line {line}, in forward'}
    target = aten.view.default if name.startswith("view") else aten.add.Tensor
    return SimpleNamespace(name=name, op="call_function", target=target, meta=meta, all_input_nodes=list(reads))


def program(*nodes: Any) -> Any:
    return SimpleNamespace(graph=SimpleNamespace(nodes=nodes))


def written_outside() -> Any:
    x = node("x", "", 1)
    part = node("view", "", 2, x)
    return program(x, part, node("add", "block", 5, part))


def test_a_view_made_anew_in_its_reader_stands_where_it_was_written() -> None:
    x = node("x", "", 1)
    again = node("view", "block", 5, x)
    assert view_stacks(written_outside(), program(x, again, node("add", "block", 5, again))) == {"view": {}}


def test_a_reader_of_another_line_that_has_the_same_name_by_chance_tells_nothing() -> None:
    x = node("x", "", 1)
    other = node("view", "block", 8, x)
    assert view_stacks(written_outside(), program(x, other, node("add", "block", 9, other))) == {}
