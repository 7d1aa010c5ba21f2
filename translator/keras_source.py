"""KERAS: what the user names as the Keras model. Keras is imported only when a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from translator import runtime
from translator.config import KERAS_SUFFIXES
from translator.errors import InputError
from translator.user_code import Spec, a, make, parse_spec, users_code

if TYPE_CHECKING:
    import keras

KERAS_FORMS = "model.keras, model.h5, file.py:factory or package.module:factory, with arguments as ?name=value"
_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedKeras:
    """A built Keras model; `name` is short and comes from the spec."""

    model: keras.Model
    name: str
    spec: str
    notes: tuple[str, ...] = ()


def is_keras_file(spec: str) -> bool:
    """Whether the text names a Keras model file, by its suffix."""
    return Path(spec).suffix in KERAS_SUFFIXES


def load_keras(spec: str, *, seed: int | None = None) -> LoadedKeras:
    """Load a Keras model from a file, with safe mode on, or from a factory.

    seed: of random initial weights; sets Keras' global seed, so it is for processes of our own. None leaves it alone.
    Raises InputError: no such file, damaged, not a model, custom code that the file needs, a factory that raises.
    """
    runtime.prepare()
    parsed = parse_spec(spec)
    if not parsed.right and not parsed.is_python_file:
        return checked(_load_file(Path(spec), spec), parsed, Path(spec).stem)
    import keras

    start = (lambda: keras.utils.set_random_seed(seed)) if seed is not None else (lambda: None)
    return checked(make(parsed, "keras.Model", seed=start), parsed, parsed.right.rpartition(".")[2])


def _load_file(path: Path, text: str) -> Any:
    kind = _kind_of_file(path, text)
    import keras

    import translator.training.registered  # noqa: F401  a file may need the classes that we register ourselves

    what = f"{text}: this {kind} can't be loaded:"
    fix = "files that need custom classes or Lambda code are not loaded: give file.py:factory that builds the model"
    with users_code(what, fix=fix):
        return keras.models.load_model(path, compile=False, safe_mode=True)


def _kind_of_file(path: Path, text: str) -> str:
    """ "Keras file" or "HDF5 file", by content. Raises InputError for anything else."""
    if path.is_dir():
        what = "a TensorFlow SavedModel folder" if (path / "saved_model.pb").exists() else "a folder"
        raise InputError(f"{text}: is {what}, not a Keras model file", fix=f"give {KERAS_FORMS}")
    if not path.is_file():
        raise InputError(f"{text}: no such file", fix=f"give {KERAS_FORMS}")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{text}: can't be read: {error.strerror}") from error
    if path.name.endswith(".weights.h5"):
        raise InputError(f"{text}: holds weights only, not a model", fix="give the model file, or file.py:factory")
    if head.startswith(b"PK\x03\x04") and path.suffix == ".keras":
        return "Keras file"
    if head.startswith(b"\x89HDF") and path.suffix in (".h5", ".hdf5"):
        return "HDF5 file"
    raise InputError(f"{text}: not a Keras model file: empty, damaged or of another format", fix=f"give {KERAS_FORMS}")


def checked(made: Any, spec: Spec, name: str) -> LoadedKeras:
    """A built Keras model with finite weights, or an InputError that says what it is instead."""
    import keras

    if not isinstance(made, keras.Model):
        raise InputError(f"{spec.text}: returned {a(made)}, not a keras.Model", fix="return the model itself")
    if not made.built:
        raise InputError(
            f"{spec.text}: the Keras model has no weights yet: it was never built",
            fix="call model.build(input_shape), or the model on an example, in the factory",
        )
    _check_finite(made, spec.text)
    return LoadedKeras(model=made, name=name, spec=spec.text)


def _check_finite(model: keras.Model, text: str) -> None:
    import keras
    import numpy as np

    bad = []
    for variable in model.weights:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        value = np.asarray(keras.ops.convert_to_numpy(keras.ops.isfinite(variable)))
        if not value.all():
            bad.append(variable.path)
    if bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise InputError(f"{text}: NaN or infinite values in {', '.join(bad[:_NAMED])}{more}")
