"""Load a model of either framework: which one it is shows in what the user's code returns."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from translator.config import SourceRequest
from translator.errors import InputError
from translator.keras_source import KERAS_FORMS, checked, is_keras_file, load_keras
from translator.user_code import SOURCE_FORMS, a, make, parse_spec

if TYPE_CHECKING:
    from translator.capture.source import LoadedSource
    from translator.keras_source import LoadedKeras


def load_either(request: SourceRequest) -> LoadedSource | LoadedKeras:
    """The PyTorch or Keras model that a spec names. Raises InputError where it is neither."""
    spec = parse_spec(request.spec)
    if is_keras_file(request.spec):
        return load_keras(request.spec, seed=request.seed)
    from translator.capture.source import LIBRARIES, load, ready

    if not spec.is_python_file and (not spec.right or spec.left in LIBRARIES):
        return load(request)
    made = make(spec, "nn.Module or keras.Model")
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    # Keras first: on its torch backend a Keras model is an nn.Module, too.
    if keras is not None and isinstance(made, keras.Model):
        return checked(made, spec, spec.right.rpartition(".")[2])
    if torch is not None and isinstance(made, torch.nn.Module):
        return ready(made, spec, request)
    raise InputError(
        f"{spec.text}: returned {a(made)}, neither an nn.Module nor a keras.Model",
        fix=f"give {SOURCE_FORMS}; or {KERAS_FORMS}",
    )
