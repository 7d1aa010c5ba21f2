"""Random networks: some in every run, a planted fault that must be found and cut down, and what isn't drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from scripts import fuzz
from scripts.fuzzing import networks
from scripts.fuzzing.layers import built
from translator.plan import registry
from translator.plan.calls import Ref
from translator.plan.context import PlanContext
from translator.plan.registry import RuleInfo

pytestmark = pytest.mark.model

_SEEDS = ["--start", "7", "--count", "16"]


def test_random_networks_are_proven_and_results_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "fuzz.jsonl"
    assert fuzz.main([*_SEEDS, "--output", str(output)]) == 0
    assert "seeds 7 to 22: 16 networks, 16 proven" in capsys.readouterr().out
    assert [json.loads(line)["status"] for line in output.read_text().splitlines()] == ["proven"] * 16
    monkeypatch.setattr(fuzz, "group", lambda seeds: pytest.fail("computed again"))
    assert fuzz.main([*_SEEDS, "--output", str(output)]) == 0


def test_a_wrong_rule_is_found_and_cut_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sine in place of a Hardswish: the run fails and names the seed; its network shrinks to that step."""
    info = registry.load_rules()["HardSwish"]

    def wrong(node: object, context: PlanContext) -> Ref:
        return context.op(node, "sin", context.arg(node))  # type: ignore[arg-type]

    changed = RuleInfo(op=info.op, since=info.since, keras=info.keras, function=wrong)  # type: ignore[arg-type]
    monkeypatch.setitem(registry._RULES, "HardSwish", changed)
    assert fuzz.main([*_SEEDS, "--output", str(tmp_path / "fuzz.jsonl")]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong: --seed ")]
    assert said
    assert fuzz.main(["--seed", said[0].split()[2].rstrip(":")]) == 1
    small = capsys.readouterr().out.partition("cut down:")[2]
    assert "1 = [nn.Hardswish()](0)" in small
    assert "2 = " not in small


def test_what_loses_its_digits_by_itself_is_not_drawn() -> None:
    value = torch.randn(2, 5)
    cancelled = lambda x: (x + 1e6) - 1e6
    assert networks._lost(cancelled(value), cancelled(value.double()))
    assert not networks._lost(value.tanh(), value.double().tanh())


def test_a_step_is_asked_in_float64_and_stays_as_it_is() -> None:
    step = networks.Step(piece=built(nn.Linear, 5, 3), reads=(0,))
    x = torch.randn(2, 5)
    exact = networks._in_float64(step, [x.double()])
    assert exact is not None
    assert exact.dtype == torch.float64
    assert torch.get_default_dtype() == torch.float32
    assert torch.allclose(exact.float(), step.piece.run(x))


def test_what_loses_all_digits_of_one_row_is_not_drawn() -> None:
    """Rounding decides what it is, and a proof looks at each row (seed 134836)."""
    exact = torch.tensor([[1.0, 2.0], [1e-17, 0.0]], dtype=torch.float64)
    assert networks._lost(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), exact)
    assert not networks._lost(exact.float(), exact)
