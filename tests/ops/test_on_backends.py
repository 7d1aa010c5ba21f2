"""Every case of the other files here as a file of its own, loaded and asked at three batches on each Keras backend."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.fuzzing.files import Found, Loaders
from tests.ops.proving import Case, Together, example, randomised
from translator.verify.artifact import BATCHES

pytestmark = [pytest.mark.op, pytest.mark.slow]


def cases() -> Iterator[object]:
    """What the tables of cases in this folder hold."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        module = importlib.import_module(f"tests.ops.{path.stem}")
        tables = [table for table in vars(module).values() if isinstance(table, tuple)]
        for one in dict.fromkeys(c for table in tables for c in table if isinstance(c, Case)):
            yield pytest.param(one, id=f"{path.stem.removeprefix('test_')}: {one.name}")


@pytest.fixture(scope="module")
def loaders() -> Iterator[Loaders]:
    with Loaders(("tensorflow", "jax", "torch"), BATCHES) as made:
        yield made


@pytest.mark.parametrize("one", list(cases()))
def test_its_file_computes_the_same_on_every_backend(one: Case, loaders: Loaders) -> None:
    from translator import runtime

    runtime.prepare()
    from translator.engines.native import translate

    module = Together([randomised(one.make())], [len(one.inputs)]).eval()
    inputs = tuple(example(spec, number) for number, spec in enumerate(one.inputs))
    assert loaders.found(module, inputs, translate(module, inputs)) == Found()
