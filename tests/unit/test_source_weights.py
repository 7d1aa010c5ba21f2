"""A written model takes the converted model's weights, whatever blocks it holds its layers in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import ruff
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.unit.writer_networks import NETWORKS
from translator.capture.trace import capture
from translator.emit import nesting
from translator.emit.keras_model import emit
from translator.emit.source.listing import keras_order, moves
from translator.emit.source.replay import check
from translator.emit.source.write_plan import checked_source
from translator.engines.native import plan_of
from translator.plan.calls import Plan


def inception() -> nn.Module:
    """Branches of one, two and three convolutions of one size, joined twice."""

    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bn(self.conv(x)).relu()

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Convolution()
            self.two = nn.Sequential(Convolution(), Convolution())
            self.three = nn.Sequential(Convolution(), Convolution(), Convolution())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(x) + self.two(x) + self.three(x)

    return nn.Sequential(Branches(), Branches(), nn.Flatten(), nn.Linear(64, 3))


def recurrent() -> nn.Module:
    """Layers that are made of layers, beside others of the same classes, in a block."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.both = nn.LSTM(8, 4, batch_first=True, bidirectional=True)
            self.lstm = nn.LSTM(8, 8, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(x, x, x, need_weights=False)[0]
            return self.lstm(self.both(x)[0])[0]

    return nn.Sequential(nn.LayerNorm(8), Block(), Block())


def chain() -> nn.Module:
    """Sequentials in Sequentials."""
    inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
    return nn.Sequential(nn.Conv2d(4, 4, 1), inner, nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(64, 3))


OWN = {
    "inception": (inception, ((2, 4, 4, 4),)),
    "recurrent": (recurrent, ((2, 5, 8),)),
    "chain": (chain, ((2, 4, 4, 4),)),
}
CASES = {name: NETWORKS[name] for name in ("stages", "shared", "unet", "mixer")} | OWN


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {
        name: plan_of(capture(build().eval(), tuple(torch.randn(s) for s in shapes), name=name))
        for name, (build, shapes) in CASES.items()
    }


def built(source: str) -> keras.Model:
    scope: dict[str, object] = {"__name__": "written"}
    exec(compile(source, "written.py", "exec"), scope)  # noqa: S102 what the writer wrote is what is tested
    return scope["build_model"]()  # type: ignore[operator, no-any-return]


def converted(plan: Plan) -> keras.Model:
    """The converted model; no two of its weights are alike."""
    model = emit(plan).model
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1, size=w.shape) for w in model.get_weights()])
    return model


def weights_by_layer(model: keras.Model, names: set[str]) -> dict[str, list[np.ndarray]]:
    found = {layer.name: layer.get_weights() for layer in model._flatten_layers() if layer.name in names}
    return {name: weights for name, weights in found.items() if weights}


def assert_same_weights(got: keras.Model, want: keras.Model, plan: Plan) -> None:
    names = {spec.name for spec in plan.layers}
    mine, theirs = weights_by_layer(got, names), weights_by_layer(want, names)
    assert mine.keys() == theirs.keys()
    for name, weights in theirs.items():
        for a, b in zip(mine[name], weights, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


STYLED = [
    *((name, style) for name in CASES for style in ("functional", "subclass")),
    ("chain", "sequential"),
]


@pytest.mark.parametrize(("name", "style"), STYLED)
def test_both_files_of_the_converted_model_fit(plans: dict[str, Plan], name: str, style: str, tmp_path: Path) -> None:
    model = converted(plans[name])
    source = checked_source(plans[name], style=style)
    for file in ("m.weights.h5", "m.keras"):
        model.save_weights(tmp_path / file) if "weights" in file else model.save(tmp_path / file)
        written = built(source)
        written.load_weights(tmp_path / file)
        assert_same_weights(written, model, plans[name])


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_layers_is_keras_own(plans: dict[str, Plan], name: str) -> None:
    listed: dict[str, list[str]] = {}
    for layer in emit(plans[name]).model.layers:
        listed.setdefault(type(layer).__name__, []).append(layer.name)
    for cls, names in keras_order(plans[name]).items():
        assert listed[cls] == names


@pytest.mark.parametrize(
    ("name", "style", "form"),
    [
        ("stages", "subclass", "layers = property("),
        ("recurrent", "subclass", "return flat(super().layers)"),
        ("inception", "subclass", "for name, other in BEHIND.items():"),
        ("chain", "sequential", "isinstance(layer, keras.Sequential)"),
    ],
)
def test_a_written_model_keeps_its_own_weights_through_both_kinds_of_file(
    plans: dict[str, Plan], name: str, style: str, form: str, tmp_path: Path
) -> None:
    source = checked_source(plans[name], style=style)
    assert form in source
    (tmp_path / "written.py").write_text(source)
    for command in (["check"], ["format", "--check"]):
        subprocess.run([ruff.find_ruff_bin(), *command, "--isolated", str(tmp_path / "written.py")], check=True)
    first = built(source)
    rng = np.random.default_rng(0)
    first.set_weights([rng.uniform(0.5, 1, size=w.shape) for w in first.get_weights()])
    first.save_weights(tmp_path / "own.weights.h5")
    first.save(tmp_path / "own.keras")
    second = built(source)
    second.load_weights(tmp_path / "own.weights.h5")
    for model in (second, keras.models.load_model(tmp_path / "own.keras")):
        assert_same_weights(model, first, plans[name])
    assert first.get_layer(plans[name].layers[-1].name).name == plans[name].layers[-1].name


@pytest.mark.parametrize("name", ["stages", "recurrent", "inception"])
def test_a_model_that_lists_its_layers_otherwise_is_found(plans: dict[str, Plan], name: str) -> None:
    source = checked_source(plans[name], style="subclass")
    others = (
        ("layers = property", "others = property"),
        ("return flat(super().layers)", "return super().layers"),
        ("names.index(other) + 1", "names.index(other)"),
    )
    wrong = source
    for right, fault in others:
        wrong = wrong.replace(right, fault)
    assert wrong != source
    assert not check(source, plans[name])
    assert check(wrong, plans[name])


def test_only_what_stands_elsewhere_is_moved(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["inception"], style="subclass")
    found = re.search(r"BEHIND = \{\n(.*?)\n\}", source, re.DOTALL)
    assert found is not None
    moved = re.findall(r'"(\w+)": "\w+"', found[1])
    assert {name.rpartition("_")[2] for name in moved} == {"conv", "bn"}
    assert len(moved) == 12, "the longest of three branches stays, in two blocks, for two classes"


@given(st.permutations("abcdefg"))
def test_moves_give_the_order_that_is_wanted(wanted: list[str]) -> None:
    names = list("abcdefg")
    made = moves(names, wanted)
    for name, other in made:
        names.remove(name)
        names.insert(names.index(other) + 1, name)
    assert names == wanted
    assert len(made) < len(wanted)


def test_the_weights_of_a_network_that_has_fewer_layers_are_refused(plans: dict[str, Plan], tmp_path: Path) -> None:
    whole = converted(plans["stages"])
    keras.Model(whole.input, whole.layers[-2].output).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"could not be loaded|expected"):
        built(checked_source(plans["stages"], style="subclass")).load_weights(tmp_path / "m.keras")


@pytest.fixture
def deep(plans: dict[str, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, keras.Model, list[str]]:
    """A network that is deep enough for nested models: its source, the converted model, the lines of the header."""
    monkeypatch.setattr(nesting, "LIMIT", 12)
    monkeypatch.chdir(tmp_path)
    model = converted(plans["stages"])
    assert any(isinstance(layer, keras.Model) for layer in model.layers)
    source = checked_source(plans["stages"], style="subclass")
    return source, model, [line[4:] for line in source.split('"""')[1].splitlines() if line.startswith("    ")]


def test_the_header_says_how_the_weights_of_nested_models_go_in(
    plans: dict[str, Plan], deep: tuple[str, keras.Model, list[str]]
) -> None:
    source, model, lines = deep
    model.save("stages.keras")
    written = built(source)
    exec("\n".join(lines), {"model": written, "keras": keras})  # noqa: S102 the recipe in the header is what is tested
    assert_same_weights(written, model, plans["stages"])


def test_the_header_refuses_the_weights_of_another_network(deep: tuple[str, keras.Model, list[str]]) -> None:
    source, model, lines = deep
    keras.Model(model.input, model.layers[-2].output).save("stages.keras")
    with pytest.raises(AssertionError, match="another network"):
        exec("\n".join(lines), {"model": built(source), "keras": keras})  # noqa: S102 as above
