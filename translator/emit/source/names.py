"""Python names: of variables, parameters, functions and classes, free of keywords, builtins and each other."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection, Iterable

ALIASES = {
    "Conv1D": "conv1d", "Conv2D": "conv2d", "Conv3D": "conv3d", "DepthwiseConv1D": "depthwise_conv1d",
    "DepthwiseConv2D": "depthwise_conv2d", "Conv2DTranspose": "conv2d_transpose", "Dense": "dense",
    "BatchNormalization": "batch_norm", "LayerNormalization": "layer_norm", "GroupNormalization": "group_norm",
}  # fmt: skip
"""What a file calls a Keras class together with the settings that all its layers share."""

RESERVED = frozenset(
    {
        "keras",
        "partial",
        "layer",
        *ALIASES.values(),
        "layers",
        "ops",
        "np",
        "h5py",
        "self",
        "name",
        "i",
        "label",
        "blocks",
        "stage",
        "nested",
        "kwargs",
        "build_model",
    }
)
"""Names that a written file uses for itself."""

OF_STAGES = frozenset({"blocks", "stage"})
"""Those that only `build_model` uses."""

SHORT = {
    "Conv1D": "conv", "Conv2D": "conv", "Conv3D": "conv", "DepthwiseConv2D": "conv", "BatchNormalization": "bn",
    "LayerNormalization": "norm", "GroupNormalization": "norm", "ReLU": "relu", "Activation": "activation",
    "Dense": "dense", "ZeroPadding2D": "pad",
}  # fmt: skip
"""What people call a layer of a Keras class where the module has only a number."""


def snake(name: str) -> str:
    """`ResidualBlock` → `residual_block`, `MBConv` → `mb_conv`, `_DenseLayer` → `dense_layer`."""
    text = re.sub(r"\W", "_", name).strip("_")
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    return identifier(text.lower())


def camel(name: str) -> str:
    """`_DenseLayer` → `DenseLayer`, `resnet18` → `Resnet18`."""
    words = re.sub(r"\W", "_", name).split("_")
    text = "".join(word[:1].upper() + word[1:] for word in words) or "Network"
    return text if text[0].isalpha() else f"Network{text}"


def identifier(text: str) -> str:
    """A Python name as near to the text as can be."""
    name = re.sub(r"\W", "_", text).strip("_") or "value"
    if name[0].isdigit():
        name = f"n{name}"
    return f"{name}_" if keyword.iskeyword(name) or keyword.issoftkeyword(name) or hasattr(builtins, name) else name


def free(base: str, taken: Collection[str], others: Iterable[str] = ()) -> str:
    """The base, or one of the others, or the base with a number: the first that isn't taken."""
    for name in (base, *others):
        if name not in taken:
            return name
    number = 2
    while f"{base}{'_' if base[-1].isdigit() else ''}{number}" in taken:
        number += 1
    return f"{base}{'_' if base[-1].isdigit() else ''}{number}"
