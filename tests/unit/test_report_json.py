from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from tests.unit.report_examples import EXAMPLES, audited, converted, equal, not_finite
from tests.unit.report_golden import must_equal_golden
from tests.unit.report_laws import reports
from translator.errors import InputError, InternalError
from translator.report.json import dumps, to_json
from translator.report.stored import from_json, read_report
from translator.verdict import Report

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

CONTRACT = {
    "parameters": {"torch_total", "torch_buffers", "keras_total", "keras_trainable", "keras_non_trainable", "gaps",
                   "unexplained"},
    "differences": {"kind", "layers", "torch", "keras", "changes_function", "fix"},
    "layers": {"torch", "keras", "type", "shape", "params_torch", "params_keras", "error_f32", "error_f64"},
    "artifact": {"path", "sha256", "reloaded", "lambda_layers", "custom_layers", "transposes"},
}  # fmt: skip


def parsed(report: Report) -> Any:
    """The text as a strict reader has it: NaN and Infinity are no JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(dumps(report), parse_constant=refuse)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_allows_no_unknown_field_anywhere_but_in_extra() -> None:
    def objects(schema: Any) -> list[dict[str, Any]]:
        if isinstance(schema, list):
            return [found for item in schema for found in objects(item)]
        if not isinstance(schema, dict):
            return []
        inner = [found for item in schema.values() for found in objects(item)]
        return [schema, *inner] if schema.get("type") == "object" else inner

    for found in objects(SCHEMA):
        if "properties" in found:
            assert found["additionalProperties"] is False
            assert set(found["required"]) == set(found["properties"])
    assert SCHEMA["properties"]["extra"]["type"] == "object"


@pytest.mark.parametrize("name", EXAMPLES)
def test_reports_fit_the_schema(name: str) -> None:
    VALIDATOR.validate(parsed(EXAMPLES[name]()))


def test_the_field_names_are_the_contract() -> None:
    found = parsed(replace(audited(), artifact=converted().artifact))
    contract = {"verdict", "parameters", "differences", "layers", "numerics", "artifact", "timing"}
    assert contract <= found.keys()
    assert CONTRACT["parameters"] <= found["parameters"].keys()
    assert {"reason", "count", "layers"} <= found["parameters"]["gaps"][0].keys()
    assert CONTRACT["differences"] <= found["differences"][0].keys()
    assert CONTRACT["layers"] <= found["layers"][0].keys()
    assert CONTRACT["artifact"] <= found["artifact"].keys()
    assert set(found["numerics"]) == {"float32", "float64"}
    assert all({"max_abs", "max_rel"} <= numbers.keys() for numbers in found["numerics"].values())
    assert all(isinstance(took, float) for took in found["timing"].values())


def test_the_seed_pair_is_told_in_numbers() -> None:
    found = parsed(audited())
    parameters = found["parameters"]
    assert found["verdict"] == "different"
    assert parameters["torch_total"] + sum(gap["count"] for gap in parameters["gaps"]) == parameters["keras_total"]
    assert (parameters["torch_total"], parameters["keras_total"], parameters["unexplained"]) == (195_738, 197_418, 0)
    assert [len(gap["layers"]) for gap in parameters["gaps"]] == [15, 15]
    assert [d["kind"] for d in found["differences"] if d["changes_function"]] == [
        "epsilon", "padding", "head-activation", "conv-bias",
    ]  # fmt: skip
    assert found["layers"][0]["shape"] == [None, 32, 32, 16]


def test_what_is_not_finite_is_a_string_and_what_was_not_measured_is_null() -> None:
    found = parsed(not_finite())
    assert found["numerics"]["float32"] == {"max_abs": "NaN", "max_rel": "NaN", "limit": None, "ok": False}
    assert found["layers"][1]["error_f64"] == "NaN"
    assert found["layers"][2]["error_f32"] == "Infinity"
    assert found["layers"][2]["error_f64"] is None
    back = from_json(found)
    assert math.isnan(back.numerics["float32"].max_rel)
    assert back.layers[2].error_f32 == math.inf
    assert back.layers[2].error_f64 is None


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "not_finite"])
def test_a_stored_report_comes_back_as_it_was(name: str) -> None:
    assert from_json(parsed(EXAMPLES[name]())) == EXAMPLES[name]()


@given(report=reports)
@settings(max_examples=150, deadline=None)
def test_any_report_fits_the_schema_and_comes_back(report: Report) -> None:
    found = parsed(report)
    VALIDATOR.validate(found)
    back = from_json(found)
    assert to_json(back) == to_json(report)
    assert back.verdict is report.verdict


def test_the_text_is_the_golden_file() -> None:
    must_equal_golden("report_audited.json", dumps(audited()))


def test_the_same_report_gives_the_same_text() -> None:
    assert dumps(audited()) == dumps(audited())


def edited(path: str, value: Any) -> dict[str, Any]:
    found = to_json(audited())
    *parents, last = path.split(".")
    target: Any = found
    for key in parents:
        target = target[int(key) if key.isdigit() else key]
    target[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("verdict", "equal", "the report, verdict says 'equal', but its own findings give 'different'"),
        ("parameters.unexplained", 7, "parameters, unexplained says 7, but its own findings give 0"),
        ("parameters.torch_total", 195_737, "parameters, unexplained says 0, but its own findings give 1"),
        ("numerics.float64.ok", True, "numerics, float64, ok says True, but its own findings give False"),
        ("differences.0.changes_function", False, "changes_function says False"),
        ("version", 2, "the report has version 2; this is version 1"),
        ("checks", {}, "'checks' is not a list"),
        ("seed", "0", "'seed' is not a whole number: '0'"),
        ("layers.3.ok", 1, "layers[3]: 'ok' is not true or false"),
        ("layers.3.shape", ["N"], "layers[3]: 'shape' is not a shape"),
        ("layers.3.error_f64", "many", "layers[3]: 'error_f64' is not a number"),
        ("differences.1.effect", "some", "differences[1]: no such effect: 'some'"),
        ("differences.1.layers", "bn", "'layers' is not a list of texts"),
        ("surprise", 1, "a field that version 1 does not know: 'surprise'"),
        ("parameters", [], "the report, parameters is not a JSON object"),
    ],
)
def test_an_edited_report_is_refused_and_says_where(path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(edited(path, value))
    assert message in str(caught.value)


def test_a_missing_field_is_named() -> None:
    found = to_json(equal())
    del found["layers"][0]["chain_f64"]
    with pytest.raises(InputError, match=r"the report, layers\[0\] has no 'chain_f64'"):
        from_json(found)


def test_files_that_are_no_report_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(InputError, match="can't be read as a report"):
        read_report(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="can't be read as a report"):
        read_report(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not JSON"):
        read_report(path)
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(InputError, match="not JSON"):
        read_report(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="the report is not a JSON object"):
        read_report(path)


def test_a_value_that_json_cannot_hold_is_a_bug_of_ours_with_its_place() -> None:
    with pytest.raises(InternalError, match=r"a report can't hold a set at extra.engine\[0\]"):
        to_json(replace(equal(), extra={"engine": [{1, 2}]}))
