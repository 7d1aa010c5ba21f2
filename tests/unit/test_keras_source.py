"""KERAS arguments: what they may be, and every way they can be wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from translator.errors import InputError
from translator.user_code import make, parse_spec

KERAS_NETWORK = """
    import keras

    def build(units=3):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])

    def unbuilt():
        return keras.Sequential([keras.layers.Dense(3)])

    def wrong():
        return {"model": 1}

    def raises():
        raise ValueError("no luck")

    def nan():
        model = build()
        model.layers[0].bias.assign([0.0, float("nan"), 0.0])
        return model

    @keras.saving.register_keras_serializable("here")
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    def custom():
        return keras.Sequential([keras.Input((4,)), Mine()])

    def lambdas():
        return keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1)])
"""


def keras_refusal(spec: str) -> str:
    from translator.keras_source import load_keras

    with pytest.raises(InputError) as caught:
        load_keras(spec)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras saving, with numpy 2.4
def test_keras_models_come_from_factories_and_files(write, tmp_path: Path) -> None:
    from translator.keras_source import load_keras

    path = write(KERAS_NETWORK)
    loaded = load_keras(f"{path}:build?units=5")
    assert (loaded.name, loaded.model.count_params()) == ("build", 25)
    loaded.model.save(tmp_path / "a.keras")
    assert load_keras(str(tmp_path / "a.keras")).model.count_params() == 25
    assert load_keras("keras.applications:MobileNetV2?weights=None&alpha=0.35&classes=3").model.output_shape == (
        None,
        3,
    )


def test_keras_models_that_cannot_be_used_are_refused_with_the_reason(write, tmp_path: Path) -> None:
    path = write(KERAS_NETWORK)
    assert "returned a dict with the keys model, not a keras.Model" in keras_refusal(f"{path}:wrong")
    assert "the factory raised ValueError: no luck" in keras_refusal(f"{path}:raises")
    assert "it was never built" in keras_refusal(f"{path}:unbuilt")
    assert "NaN or infinite values in sequential" in keras_refusal(f"{path}:nan")
    assert "no such file" in keras_refusal(str(tmp_path / "absent.keras"))
    assert "is a folder" in keras_refusal(str(tmp_path))
    for name in ("text.keras", "text.h5"):
        (tmp_path / name).write_text("this is no model")
        assert "not a Keras model file" in keras_refusal(str(tmp_path / name))
    (tmp_path / "zip.keras").write_bytes(b"PK\x03\x04 and no more")
    assert "can't be loaded" in keras_refusal(str(tmp_path / "zip.keras"))


@contextmanager
def forgotten_classes() -> Iterator[None]:
    """As in a process in which nobody registered a class."""
    import keras

    known = keras.saving.get_custom_objects()
    before = dict(known)
    known.clear()
    yield
    known.update(before)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_files_that_need_code_are_refused(write, tmp_path: Path) -> None:

    path = write(KERAS_NETWORK)
    for factory, reason in (("custom", "Mine"), ("lambdas", "Lambda")):
        file = tmp_path / f"{factory}.keras"
        make(parse_spec(f"{path}:{factory}"), "keras.Model").save(file)
        with forgotten_classes():
            message = keras_refusal(str(file))
        assert reason in message
        assert "give file.py:factory that builds the model" in message
    with_weights = tmp_path / "a.weights.h5"
    make(parse_spec(f"{path}:build"), "keras.Model").save_weights(with_weights)
    assert "holds weights only" in keras_refusal(str(with_weights))


def test_a_config_that_is_no_model_is_refused_not_crashed_on(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr(
            "config.json", json.dumps({"module": "os", "class_name": "system", "config": {"command": "x"}})
        )
        archive.writestr("metadata.json", "{}")
    assert "can't be loaded" in keras_refusal(str(tmp_path / "a.keras"))
