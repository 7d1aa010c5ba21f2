"""Random networks: some in every run, a planted fault that must be found and cut down, and what isn't drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scripts import fuzz
from scripts.fuzzing import files, networks
from scripts.fuzzing.layers import built
from translator.engines.native import translate
from translator.plan import registry
from translator.plan.calls import Ref
from translator.plan.context import PlanContext
from translator.plan.registry import RuleInfo
from translator.plan.rules import pick
from translator.verify import artifact

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


_REFLECTED = ["--start", "300037", "--count", "1", "--load", "torch"]
"""It reflects the borders of a tensor of rank 5, its outermost axis too, which PyTorch's own padding doesn't."""


def test_a_file_that_does_not_run_on_a_backend_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault is one that the first run with files found: TensorFlow computes it, and its proof passes."""
    assert fuzz.main([*_REFLECTED, "--output", str(tmp_path / "right.jsonl")]) == 0
    monkeypatch.setattr(pick, "_keras_reflects", lambda *args: True)
    assert fuzz.main([*_REFLECTED, "--output", str(tmp_path / "wrong.jsonl")]) == 1
    assert "wrong: --seed 300037: torch: NotImplementedError: Padding size 8" in capsys.readouterr().out
    later = ["--output", str(tmp_path / "later.jsonl")]
    assert fuzz.main([*_REFLECTED[:4], *later]) == 0
    assert fuzz.main([*_REFLECTED, *later]) == 1  # what was never loaded is no result of such a run


def test_a_loading_process_that_ends_is_a_crash_and_started_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = artifact.ArtifactWorker.ask, []

    def ended_once(worker: artifact.ArtifactWorker, job: dict[str, object]) -> dict[str, object]:
        asked.append(worker)
        if len(asked) == 1:
            worker._process.kill()
        return ask(worker, job)

    monkeypatch.setattr(artifact.ArtifactWorker, "ask", ended_once)
    arguments = ["--start", "7", "--count", "2", "--together", "1", "--load", "tensorflow"]
    assert fuzz.main([*arguments, "--output", str(tmp_path / "fuzz.jsonl")]) == 1
    said = capsys.readouterr().out
    assert "crashed: --seed 7: LoaderEndedError: tensorflow: the process ended with status -9" in said
    assert "seeds 7 to 8: 2 networks, 1 crashed, 1 proven" in said
    assert asked[0] is not asked[1]


class Rounded(nn.Module):
    """It loses half of its digits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1e4) - 1e4  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("module", "distance", "alone", "said"),
    [
        (Rounded(), 1e-3, True, files.Found()), (Rounded(), 1e-3, False, files.Found(wrong="torch: far")),
        (nn.Tanh(), 1e-3, True, files.Found(rough="torch: far")),
        (nn.Tanh(), 0.5, True, files.Found(wrong="torch: far")),
        (nn.Tanh(), None, True, files.Found(wrong="torch: far")),
    ],
)  # fmt: skip
def test_a_backend_may_lose_the_digits_that_pytorch_loses(
    module: nn.Module, distance: float | None, alone: bool, said: files.Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 50)
    result = translate(module, (x,))
    judge = files.judge_file

    def off(path: Path, **given: Any) -> Any:
        found = judge(path, **given)
        assert found.error == ""
        return replace(found, error="far", max_rel=distance)

    monkeypatch.setattr(files, "judge_file", off)
    with files.Loaders(["torch"]) as loaders:
        assert loaders.found(module, (x,), result, alone=alone) == said


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


def test_a_network_in_which_pytorch_reads_foreign_memory_is_unusable() -> None:
    """PyTorch 2.15's median along an expanded axis (seed 362007): what it gives is no function of its input."""

    def asked(read: Callable[[Tensor], Tensor]) -> tuple[str, str]:
        pieces = (
            networks.Piece(text="expand", run=lambda x: x.expand(-1, 3, -1)),
            networks.Piece(text="read", run=read),
        )
        steps = tuple(networks.Step(piece=piece, reads=(i,)) for i, piece in enumerate(pieces))
        made = networks.Recipe(seed=1, shape=(2, 1, 4), steps=steps, outputs=(2,))
        return fuzz.asked([made], files.Loaders(()))

    assert asked(lambda x: x.sum(1)) == ("proven", "")
    assert asked(lambda x: x.sum(1).log()) == ("proven", "")  # of negative numbers NaN, on both sides
    assert asked(lambda x: x.sum(1) + (0 in x.stride()))[0] == "unusable"
