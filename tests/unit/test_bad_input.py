"""Input that can't be used: exit status 2, one clear message on stderr, no traceback, no output file."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from translator.cli import cli

NETWORK = textwrap.dedent("""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn(self.conv(x))

    class Noisy(Net):
        def forward(self, x):
            x = super().forward(x)
            return x + torch.randn_like(x)

    def raises():
        raise ValueError("no weights today")

    def nothing():
        return None
""")


class Workplace:
    """A folder with a network in it, and the command that converts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = folder / "net.py"
        self.network.write_text(NETWORK)
        self.output = folder / "out.keras"

    def refused(self, factory: str = "Net", *options: str, source: str = "", shape: str = "2,3,8,8") -> str:
        """The message of a conversion that must be refused."""
        before = sorted(self.folder.iterdir())
        spec = source or f"{self.network}:{factory}"
        done = CliRunner().invoke(
            cli, ["convert", spec, "-o", str(self.output), "--input-shape", shape, "--report", "r.json", *options]
        )
        assert done.exit_code == 2, done.output
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
        assert sorted(p for p in self.folder.iterdir() if p.name != "__pycache__") == before
        return done.stderr

    def weights(self, change: Callable[[dict[str, Any]], object] = lambda state: None) -> str:
        """A checkpoint of the network, changed."""
        net = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4)})
        state = dict(net.state_dict())
        change(state)
        path = self.folder / "weights.pt"
        torch.save(state, path)
        return str(path)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path)


def test_no_such_file(work: Workplace) -> None:
    assert "no such file: absent.py" in work.refused(source="absent.py:Net")
    assert "absent.pt: no such file" in work.refused("Net", "--weights", "absent.pt")


def test_not_a_checkpoint(work: Workplace) -> None:
    assert "net.py: not a checkpoint" in work.refused("Net", "--weights", str(work.network))


def test_a_truncated_checkpoint(work: Workplace) -> None:
    path = Path(work.weights())
    path.write_bytes(path.read_bytes()[:-500])
    assert "damaged or cut off" in work.refused("Net", "--weights", str(path))


def test_a_checkpoint_that_needs_code_is_never_executed(work: Workplace) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(work.folder / "planted"),))

    path = work.weights(lambda state: state.update(extra=Bomb()))
    assert "loading it would run code of" in work.refused("Net", "--weights", path)
    assert not (work.folder / "planted").exists()


def test_keys_missing_unexpected_or_of_another_shape(work: Workplace) -> None:
    def change(state: dict[str, Any]) -> None:
        del state["conv.bias"]
        state["extra"] = torch.ones(2)
        state["bn.weight"] = torch.ones(5)

    message = work.refused("Net", "--weights", work.weights(change))
    assert "1 missing from the file:\n    conv.bias (4,)" in message
    assert "1 not in the model:\n    extra (2,)" in message
    assert "1 of another shape:\n    bn.weight: file (5,), model (4,)" in message


def test_nan_in_the_weights(work: Workplace) -> None:
    path = work.weights(lambda state: state["bn.running_var"].fill_(float("nan")))
    assert "NaN or infinite values in bn.running_var (4 of 4)" in work.refused("Net", "--weights", path)


def test_a_wrong_input_shape(work: Workplace) -> None:
    message = work.refused(shape="2,5,8,8")
    assert "module:  conv (Conv2d)" in message
    assert "net.py, line 12, in forward" in message


def test_a_factory_that_raises_or_returns_no_model(work: Workplace) -> None:
    message = work.refused("raises")
    assert "the factory raised ValueError: no weights today" in message
    assert "net.py, line 20, in raises" in message
    assert "returned None, not an nn.Module" in work.refused("nothing")


def test_an_operation_that_is_not_supported_is_named_with_its_line(work: Workplace) -> None:
    message = work.refused("Noisy")
    assert "RandomNormalLike" in message
    assert "net.py, line 17" in message


def test_outputs_that_cannot_be_written_are_refused_before_the_work(work: Workplace) -> None:
    assert "does not exist" in work.refused("raises", "-o", str(work.folder / "absent" / "out.keras"))
    assert "can't be written to" in work.refused("raises", "-o", "/proc/out.keras")
    assert "not a kind of output" in work.refused("raises", "-o", "out.h5")
    assert "no report has the suffix '.pdf'" in work.refused("raises", "--report", "r.pdf")
    work.output.write_text("old")
    assert "exists already" in work.refused("raises")
    assert work.output.read_text() == "old"


@pytest.mark.parametrize("shape", ["2,3,x", "", "0,3,8,8", "-1,3,8,8", "2;3"])
def test_an_input_shape_that_is_none(work: Workplace, shape: str) -> None:
    done = CliRunner().invoke(cli, ["convert", "net.py:Net", "-o", "out.keras", "--input-shape", shape])
    assert done.exit_code == 2
    assert "Invalid value for '--input-shape'" in done.stderr


def test_a_keras_model_that_is_none(work: Workplace) -> None:
    for keras, message in (("absent.keras", "no such file"), ("net.py:nothing", "returned None, not a keras.Model")):
        done = CliRunner().invoke(cli, ["summary", keras])
        assert done.exit_code == 2
        assert message.replace("not a", "neither an nn.Module nor a") in done.stderr
