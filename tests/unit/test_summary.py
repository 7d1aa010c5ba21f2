from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from torch import nn

from models import cifar_resnet, cifar_resnet_keras
from tests.unit.report_golden import must_equal_golden
from translator.errors import InputError
from translator.report.summary import SummaryTable, render, summarise, summary, to_csv
from translator.report.summary_keras import keras_summary
from translator.report.summary_torch import torch_summary

GOLDEN = Path(__file__).parents[1] / "golden"


def published(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((GOLDEN / name).read_text(encoding="utf-8"))))


def written(table: SummaryTable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def shown(table: SummaryTable, width: int) -> str:
    target = io.StringIO()
    render(table, Console(file=target, width=width))
    return target.getvalue()


@pytest.fixture(scope="module")
def torch_table() -> SummaryTable:
    return torch_summary(cifar_resnet.resnet(), cifar_resnet.example_inputs())


@pytest.fixture(scope="module")
def keras_table() -> SummaryTable:
    keras.backend.clear_session()
    return keras_summary(cifar_resnet_keras.resnet())


def columns(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(row["type"], row["output_shape"], row["params"]) for row in rows]


def test_torch_table_is_the_published_one_row_by_row(torch_table: SummaryTable) -> None:
    want = published("torch_summary.csv")
    assert len(want) == 51
    assert columns(written(torch_table)) == columns(want)
    assert [row["index"] for row in written(torch_table)] == [row["index"] for row in want]
    assert (torch_table.total, torch_table.trainable, torch_table.non_trainable) == (195_738, 195_738, 0)


def test_keras_table_is_the_published_one_row_by_row(keras_table: SummaryTable) -> None:
    want = published("keras_summary.csv")
    assert len(want) == 53
    assert columns(written(keras_table)) == columns(want)
    assert (keras_table.total, keras_table.trainable, keras_table.non_trainable) == (197_418, 196_298, 1_120)


def test_keras_layers_are_connected_as_published(keras_table: SummaryTable) -> None:
    def wiring(rows: list[dict[str, str]]) -> list[list[int]]:
        """The inputs of each row as numbers of rows: names carry counters of a session."""
        index = {row["name"]: i for i, row in enumerate(rows)}
        return [[index[source.split("[")[0]] for source in row["connected_to"].split()] for row in rows]

    assert wiring(written(keras_table)) == wiring(published("keras_summary.csv"))


def test_buffers_stand_in_a_column_of_their_own(torch_table: SummaryTable, keras_table: SummaryTable) -> None:
    assert (torch_table.buffers, torch_table.statistics) == (1_135, 1_120)
    assert sum(row.buffers for row in torch_table.rows) == 1_135
    assert {row.buffers for row in torch_table.rows if row.type == "BatchNorm2d"} == {33, 65, 129}
    assert sum(row.buffers for row in keras_table.rows) == keras_table.buffers == 1_120


@pytest.mark.parametrize("width", [80, 120])
def test_tables_are_the_golden_pages(torch_table: SummaryTable, keras_table: SummaryTable, width: int) -> None:
    must_equal_golden(f"report_summary_torch_{width}.txt", shown(torch_table, width))
    must_equal_golden(f"report_summary_keras_{width}.txt", shown(keras_table, width))


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_line_is_longer_than_the_terminal(torch_table: SummaryTable, keras_table: SummaryTable, width: int) -> None:
    for table in (torch_table, keras_table):
        text = shown(table, width)
        assert all(cell_len(line) <= width for line in text.splitlines())
        assert f"{table.total:,} parameters: {table.trainable:,} trainable" in text


class Tied(nn.Module):
    """An embedding whose weight is the output projection's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x))


class Attentive(nn.Module):
    """Parameters of its own, an attention layer, an auxiliary head that is not run, a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.aux = nn.Linear(8, 3)
        self.rnn = nn.LSTM(8, 5, batch_first=True)
        self.blocks = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 2)])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = x + self.token
        x = self.norm(self.norm(self.attend(x, x, x)[0]))
        x = self.rnn(x)[0]
        for block in self.blocks:
            x = block(x)
        return {"out": x}


def torch_pairs() -> dict[str, tuple[nn.Module, Any]]:
    return {
        "tied": (Tied(), torch.zeros(3, 2, dtype=torch.long)),
        "attentive": (Attentive(), torch.zeros(3, 7, 8)),
        "bare": (nn.Linear(2, 3), torch.zeros(4, 2)),
        "chain": (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.PReLU(3)), (torch.zeros(4, 2),)),
        "empty": (nn.Identity(), torch.zeros(4, 2)),
        "lazy": (nn.Sequential(nn.LazyLinear(3), nn.Dropout()), torch.zeros(4, 2)),
    }


@pytest.mark.parametrize("name", ["tied", "attentive", "bare", "chain", "empty", "lazy"])
def test_torch_rows_add_up_to_the_totals(name: str) -> None:
    module, inputs = torch_pairs()[name]
    table = torch_summary(module, inputs)
    assert sum(row.params for row in table.rows) == table.total == sum(p.numel() for p in module.parameters())
    assert sum(row.buffers for row in table.rows) == table.buffers == sum(b.numel() for b in module.buffers())


def test_tied_weights_count_once_where_they_come_first() -> None:
    module, inputs = torch_pairs()["tied"]
    table = torch_summary(module, inputs)
    assert [(row.name, row.params, row.shared) for row in table.rows] == [("embed", 44, 0), ("head", 11, 44)]
    assert table.total == 55


def test_a_module_called_twice_has_two_rows_and_counts_once() -> None:
    module, inputs = torch_pairs()["attentive"]
    table = torch_summary(module, inputs)
    norms = [row for row in table.rows if row.type == "LayerNorm"]
    assert [(row.call, row.params, row.shared) for row in norms] == [(0, 16, 0), (1, 0, 16)]
    text = shown(table, 100)
    assert "norm (2)" in text
    assert "(16)" in text
    assert "(n): shared with an earlier row" in text


def test_parameters_of_modules_that_are_not_called_are_not_lost() -> None:
    module, inputs = torch_pairs()["attentive"]
    table = torch_summary(module, inputs)
    names = [row.name for row in table.rows]
    uncalled = {row.name: row.params for row in table.rows if row.note == "not called"}
    assert uncalled == {"attend.out_proj": 72, "aux": 27}
    assert names.index("attend.out_proj") == names.index("attend") - 1
    assert names[-1] == "Attentive"
    assert table.rows[-1].params == 8


def test_the_batch_is_n_and_several_outputs_are_all_shown() -> None:
    module, inputs = torch_pairs()["attentive"]
    rows = {row.name: row.shapes for row in torch_summary(module, inputs).rows}
    assert rows["rnn"] == ((None, 7, 5), (1, 3, 5), (1, 3, 5))
    assert rows["Attentive"] == ((None, 7, 2),)


def test_frozen_parameters_are_not_trainable() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module[0].requires_grad_(requires_grad=False)
    table = torch_summary(module, torch.zeros(1, 2))
    assert (table.total, table.trainable, table.non_trainable) == (13, 4, 9)


def test_summarising_leaves_the_model_and_the_generator_as_they_were() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.RReLU())
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = torch.get_rng_state()
    torch_summary(module, torch.ones(4, 2))
    assert [part.training for part in module] == [True, True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks for part in module.modules())


def test_a_model_that_raises_is_left_without_hooks_and_in_its_mode() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        torch_summary(module, torch.zeros(1, 2))
    assert module.training
    assert not any(part._forward_hooks for part in module.modules())


class Doubling(keras.layers.Layer):
    """A user's layer that is made of layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(4, name="inner")

    def call(self, x: Any) -> Any:
        return self.inner(self.inner(x))


class Subclassed(keras.Model):
    """Layers made in the constructor and wired in `call`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = keras.layers.Dense(4, name="first")
        self.act = keras.layers.ReLU(name="act")
        self.twice = Doubling(name="twice")
        self.head = keras.layers.Dense(2, name="head")
        self.scale = self.add_weight(shape=(2,), name="scale")

    def call(self, x: Any) -> Any:
        return self.head(self.twice(self.act(self.first(x)))) * self.scale


def keras_models() -> dict[str, keras.Model]:
    layers = keras.layers
    x = keras.Input((5,), name="x")
    shared = layers.Dense(5, name="shared")
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(3, name="a"), layers.BatchNormalization(name="b")], name="in"
    )
    joined = layers.Add(name="sum")([shared(x), shared(shared(x))])
    functional = keras.Model(x, [keras.ops.relu(inner(joined)), joined], name="functional")
    frozen = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="fixed"), layers.Dropout(0.5)], name="frozen")
    frozen.layers[0].trainable = False
    subclassed = Subclassed()
    subclassed(keras.ops.zeros((1, 3)))
    return {"functional": functional, "sequential": inner, "frozen": frozen, "subclassed": subclassed}


@pytest.mark.parametrize("name", ["functional", "sequential", "frozen", "subclassed"])
def test_keras_rows_add_up_to_the_totals(name: str) -> None:
    model = keras_models()[name]
    table = keras_summary(model)
    assert sum(row.params for row in table.rows) == table.total == model.count_params()
    assert sum(row.buffers for row in table.rows) == table.buffers == table.non_trainable


def test_a_nested_keras_model_is_opened_and_a_shared_layer_counts_once() -> None:
    table = keras_summary(keras_models()["functional"])
    rows = {row.name: row for row in table.rows}
    assert rows["shared"].params == 30
    assert [source.split("[")[0] for source in rows["shared"].inputs] == ["x", "x", "shared"]
    assert (rows["in/a"].params, rows["in/b"].params, rows["in/b"].buffers) == (18, 12, 6)
    assert (rows["in"].params, rows["in"].shapes) == (0, ((None, 3),))
    assert [row.type for row in table.rows][-1] == "Relu"


def test_a_subclassed_keras_model_shows_its_shapes() -> None:
    table = keras_summary(keras_models()["subclassed"])
    rows = {row.name: row for row in table.rows}
    assert rows["act"].shapes == ((None, 4),)
    assert rows["twice/inner"].params == 20
    assert rows["twice"].params == 0
    assert rows["head"].shapes == ((None, 2),)
    assert table.rows[-1].params == 2
    assert not rows["act"].inputs


def test_a_frozen_keras_layer_is_not_trained() -> None:
    table = keras_summary(keras_models()["frozen"])
    assert (table.total, table.trainable, table.non_trainable) == (10, 0, 10)


def test_tracing_a_subclassed_model_leaves_keras_as_it_was() -> None:
    before = keras.layers.Layer.__call__
    keras_summary(keras_models()["subclassed"])
    assert keras.layers.Layer.__call__ is before


def test_one_function_summarises_either_side() -> None:
    assert summary(nn.Linear(2, 3), torch.zeros(1, 2)).framework == "PyTorch"
    assert summary(keras_models()["frozen"]).framework == "Keras"


def test_what_is_neither_is_refused_and_so_is_a_module_without_inputs() -> None:
    with pytest.raises(InputError, match=r"got int, neither an nn\.Module nor a keras\.Model"):
        summary(3)
    with pytest.raises(InputError, match=r"is run once to be summarised\n.*give example_inputs"):
        summary(nn.Linear(2, 3))


def test_what_the_user_named_is_summarised() -> None:
    from translator.capture.source import LoadedSource
    from translator.keras_source import LoadedKeras

    source = LoadedSource(module=nn.Linear(2, 3), example_inputs=(torch.zeros(1, 2),), name="linear", spec="x:y")
    assert summarise(source).total == 9
    assert summarise(LoadedKeras(model=keras_models()["frozen"], name="frozen", spec="x:y")).total == 10


def test_a_torch_summary_does_not_load_keras() -> None:
    code = """
import sys, torch
from translator.report.summary import summary
assert summary(torch.nn.Linear(2, 3), torch.zeros(1, 2)).total == 9
assert not {"keras", "tensorflow"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
