"""Written source: what folds is written once, what doesn't is flat, and nothing but the plan's network comes out."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import ruff
import torch
from torch import nn

import translator
from tests.unit.writer_networks import (
    NETWORKS,
)
from translator.capture.trace import capture
from translator.emit.source.order import together
from translator.emit.source.replay import check
from translator.emit.source.write_plan import checked_source
from translator.engines.native import plan_of
from translator.errors import InputError, InternalError, UnsupportedError
from translator.plan.calls import OpCall, Plan, Ref


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    made = {
        name: plan_of(capture(build().eval(), tuple(torch.randn(s) for s in shapes), name=name))
        for name, (build, shapes) in NETWORKS.items()
    }
    # PyTorch's exporter can't trace a child called `class`; a plan from elsewhere can hold one.
    made["keywords"] = renamed(made["keywords"], {"klass": "class", "lampda": "lambda"})
    return made


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Plain data with words replaced in all of its texts."""
    if isinstance(value, str):
        for old, new in names.items():
            value = value.replace(old, new)
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: renamed(getattr(value, f.name), names) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    if isinstance(value, Mapping):
        return {renamed(k, names): renamed(v, names) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(renamed(v, names) for v in value)
    return value


def run(source: str) -> dict[str, object]:
    scope: dict[str, object] = {"__name__": "written"}
    exec(compile(source, "written.py", "exec"), scope)  # noqa: S102 what the writer wrote is what is tested
    return scope


def built(source: str) -> keras.Model:
    return run(source)["build_model"]()  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("style", ["functional", "subclass"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_lint_clean_and_builds_its_layers(
    plans: dict[str, Plan], name: str, style: str, tmp_path: Path
) -> None:
    source = checked_source(plans[name], style=style)
    path = tmp_path / "written.py"
    path.write_text(source)
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff.find_ruff_bin(), *command, "--isolated", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    layers = {layer.name for layer in built(source)._flatten_layers()}
    assert {spec.name for spec in plans[name].layers} <= layers


def test_a_class_used_many_times_is_one_function_in_a_loop_over_stages(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["stages"])
    assert source.count("def ") == 2
    assert "for stage, filters, strides in ((1, 3, 1), (2, 8, 2), (3, 16, 2)):" in source
    assert "if strides > 1:" in source


def test_blocks_that_read_all_before_them_gather_a_list(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["dense"])
    assert source.count("def gather(") == 1
    assert "features.append(gather(features" in source


@pytest.mark.parametrize(
    ("reads", "order"),
    [("a", "a constant block1 block2 c"), ("block1", "a block1 constant block2 c")],
    ids=["of what is outside", "of the block"],
)
def test_what_interrupts_a_block_comes_first_unless_it_is_made_of_the_block(reads: str, order: str) -> None:
    def call(name: str, *inputs: str) -> OpCall:
        return OpCall(name=name, op="add", args=tuple(Ref(i) for i in inputs), outputs=(name,), kwargs={})

    chain = call("a"), call("block1", "a"), call("constant", reads), call("block2", "block1", "constant")
    calls = [*chain, call("c", "block2")]
    found = together(calls, lambda c: [("block", 0)] if c.name.startswith("block") else [])
    assert " ".join(c.name for c in found) == order


def test_a_shared_layer_is_made_once_and_called_twice(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["shared"])
    assert source.count('name="encoder_0"') == 1
    assert source.count("= encoder_0(") == 2


def test_equal_sequentials_are_one_function_and_what_is_joined_later_keeps_a_name(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["unet"])
    assert source.count("def block(x, filters, *, name):") == 1
    assert source.count("block(") == 4
    assert "skip = x" in source
    assert "([skip, x])" in source


def test_blocks_whose_numbered_parts_are_others_are_two_functions(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["steps"])
    assert source.count("def step(") == source.count("def step2(") == 1


def test_values_are_called_what_they_are_for(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["text"])
    assert "x = ops.dot_product_attention(query, key, value" in source
    assert 'index = ops.cast(ops.zeros_like(inputs[:1, 0, 0]), "int32")' in source
    assert "    # A free parameter of the PyTorch model, kept as the one row of an embedding.\n    place = " in source


def test_parts_that_differ_are_told_by_their_bounds_and_long_tables_stand_at_the_top(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["windows"])
    assert "def window(x, index, size, table, *, name):" in source
    assert "x = x[:, :size, :]" in source
    assert '("first", 5, TABLE),' in source
    assert source.index("TABLE = np.array([\n    [10, 9, 8, 7, 6, 5],\n") < source.index("def window")


def test_many_numbers_of_one_tuple_are_one_parameter_and_a_list_walked_by_hand_is_a_loop(
    plans: dict[str, Plan],
) -> None:
    source = checked_source(plans["turns"])
    assert "def turn(x, rate, target_shape, axes, *, name):" in source
    assert "ops.transpose(x, axes)" in source
    assert source.count("turn(x,") == 2


def test_what_stands_under_a_condition_and_under_its_opposite_stands_once(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["mixer"])
    assert "    for i in range(4):\n        x = mix(x, norm1=i > 0," in source
    assert "    if norm1:\n        x = ops.transpose(x, (0, 2, 1))\n" in source
    assert "    if not norm1:\n        shortcut = ops.transpose(shortcut, (0, 2, 1))\n" in source
    assert "else:" not in source


def test_the_mask_of_an_attention_is_called_so_all_the_way(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["masked"])
    assert "def heads(x, attention_mask, *, name):" in source
    assert "mask=attention_mask)" in source.replace("\n    ", "")
    assert "    attention_mask = ops.greater(weight_input, 0.0)" in source
    assert "x = heads(x, attention_mask," in source


def test_a_layer_inside_another_is_written_inside_it(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["text"])
    assert 'layers.LSTM(4, use_bias=True, return_sequences=True, name="lstm")' in source
    wrong = source.replace("layers.LSTM(4, use_bias=True", "layers.LSTM(4, use_bias=False")
    with pytest.raises(InternalError, match="the written layer recurrent is"):
        check(wrong, plans["text"])


def test_a_layer_that_some_blocks_lack_is_none_there(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["dense"], style="subclass")
    assert " if concatenate else None" in source
    assert "if self.concatenate:" in source


def test_arguments_of_operations_at_their_defaults_are_left_out_and_still_compared(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["text"])
    with pytest.raises(InternalError, match="wires layers otherwise"):
        check(source.replace("key, value,", "key, value, is_causal=True,"), plans["text"])


def test_names_that_keras_gives_to_operations_do_not_meet_those_of_layers(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["automatic"])
    assert 'for name in ("add", "einsum", "einsum"):' in source
    keras.utils.clear_session()
    built(source)
    keras.utils.clear_session()
    with pytest.raises(ValueError, match='"add" is used 2 times'):
        built(source.replace("keras.backend.get_uid(name)", "pass"))


def test_num_classes_and_input_shape_can_be_others(plans: dict[str, Plan]) -> None:
    build = run(checked_source(plans["stages"]))["build_model"]
    assert build(input_shape=(16, 16, 3), num_classes=7).output_shape == (None, 7)  # type: ignore[operator]


def test_epsilon_momentum_and_bias_are_written_with_a_word_on_keras_defaults(plans: dict[str, Plan]) -> None:
    source = checked_source(plans["stages"])
    assert "momentum=0.9, epsilon=1e-5" in source
    assert "# momentum and epsilon as in PyTorch; Keras' defaults are 0.99 and 0.001." in source
    assert "use_bias=False" in source
    assert "use_bias=True" in source


def test_a_subclassed_model_survives_saving_and_loading(plans: dict[str, Plan], tmp_path: Path) -> None:
    model = built(checked_source(plans["stages"], style="subclass"))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(again(x)))
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    assert [x.name for x in again._flatten_layers()] == [x.name for x in model._flatten_layers()]


def test_a_chain_is_a_sequential_with_sequentials_inside() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(144, 5))).eval()
    model = built(translator.write_source(chain, torch.randn(2, 3, 8, 8), style="sequential", name="chain"))
    assert isinstance(model, keras.Sequential)
    assert [type(layer).__name__ for layer in model._layers] == ["InputLayer", "Conv2D", "ReLU", "Sequential"]
    assert [type(layer).__name__ for layer in model.layers] == ["Conv2D", "ReLU", "Flatten", "Dense"]


def test_a_branch_is_refused_by_name_and_points_to_the_functional_style(plans: dict[str, Plan]) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        checked_source(plans["stages"], style="sequential")
    text = str(refusal.value)
    assert "its first branch is after `x`, which `stage1_0_conv` and `stage1_0_add` read" in text
    assert "module:  stage1.0" in text
    assert "--style functional" in text


def test_several_inputs_are_refused_by_the_sequential_style(plans: dict[str, Plan]) -> None:
    with pytest.raises(UnsupportedError, match="it has 2 inputs: a, b"):
        checked_source(plans["shared"], style="sequential")


def test_an_unknown_style_and_a_missing_example_are_refused(plans: dict[str, Plan]) -> None:
    with pytest.raises(InputError, match="no style is called 'prose'"):
        translator.write_source(plans["stages"], style="prose")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs example inputs"):
        translator.write_source(nn.Linear(2, 2))


FAULTS = {
    "another setting": ("epsilon=1e-5", "epsilon=1e-6", "the written layer"),
    "another name": ('name="fc"', 'name="head"', "lacks the layers"),
    "operands exchanged": ("[x, shortcut]", "[shortcut, x]", "wires layers otherwise"),
    "the shortcut forgotten": ("[x, shortcut]", "[x, x]", "the written source"),
    "the stride at another block": ("strides if i == 0", "strides if i == 1", "the written"),
    "a block too few": ("range(2)", "range(1)", "lacks the layers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_replay_finds_a_planted_fault(plans: dict[str, Plan], fault: str) -> None:
    right, wrong, said = FAULTS[fault]
    source = checked_source(plans["stages"])
    assert right in source
    with pytest.raises(InternalError, match=said):
        check(source.replace(right, wrong), plans["stages"])


def test_a_network_in_float64_is_refused_with_what_to_do() -> None:
    module = nn.Sequential(nn.Linear(3, 2)).double()
    with pytest.raises(UnsupportedError, match="computes in float64") as refused:
        translator.write_source(module, torch.randn(2, 3, dtype=torch.float64))
    assert "module.float()" in str(refused.value)
