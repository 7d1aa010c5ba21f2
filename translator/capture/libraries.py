"""Models that installed libraries build by name: torchvision, timm, and transformers from a local folder."""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from translator.errors import InputError, UnsupportedError
from translator.types import Shape
from translator.user_code import Spec, near, users_code

if TYPE_CHECKING:
    from torch import nn

_VIDEO_FRAMES = 16
_SEGMENTATION_SIZE = 224
_TOKENS = 16
_IMAGE_SIDE = 224
_TEXT_INPUTS = ("input_ids", "decoder_input_ids")


def build_torchvision(spec: Spec) -> nn.Module:
    """`torchvision:NAME?argument=value`, random weights unless `weights=` says otherwise; nothing is downloaded."""
    models = _import("torchvision.models", "torchvision", spec)
    builder = _named(spec, models.list_models(), models.get_model_builder)
    arguments = dict(spec.arguments)
    if "weights_backbone" in inspect.signature(builder).parameters:
        arguments.setdefault("weights_backbone", None)  # its default would be downloaded
    return _build(spec, builder, arguments)


def torchvision_shapes(spec: Spec, module: nn.Module) -> list[Shape]:
    """The input sizes, with the batch, that torchvision's own preprocessing for this model makes."""
    models = _import("torchvision.models", "torchvision", spec)
    weights = models.get_model_weights(spec.right).DEFAULT
    preset, settings = weights.transforms, getattr(weights.transforms, "keywords", {})
    match getattr(preset, "func", preset).__name__:
        case "ImageClassification":
            side = getattr(module, "image_size", None) or settings["crop_size"]
            return [(2, 3, side, side)]
        case "SemanticSegmentation":
            return [(2, 3, _SEGMENTATION_SIZE, _SEGMENTATION_SIZE)]
        case "VideoClassification":
            frames = max(_VIDEO_FRAMES, weights.meta.get("min_temporal_size", 1))
            return [(2, 3, frames, *settings["crop_size"])]
        case "OpticalFlow":
            return [(2, 3, *weights.meta["min_size"])] * 2
        case kind:
            raise UnsupportedError(
                f"{spec.text}: {kind} models take a list of images and return a list of dicts, not tensors",
                reason="sequence-type",
                fix="translate its parts: a factory that returns the backbone or the head",
            )


def build_timm(spec: Spec) -> nn.Module:
    """`timm:NAME?argument=value`, random weights unless `pretrained=True`."""
    timm = _import("timm", "timm", spec)
    choices = timm.list_models()
    if spec.right not in choices and not timm.is_model(spec.right):
        _named(spec, choices, lambda name: name)
    return _build(spec, lambda **arguments: timm.create_model(spec.right, **arguments), spec.arguments)


def timm_shapes(spec: Spec, module: nn.Module) -> list[Shape]:
    """The input size of the model's own configuration, or of the arguments `img_size` and `in_chans`."""
    config: Any = getattr(module, "pretrained_cfg", None) or {}
    channels, *size = config.get("input_size") or (3, 224, 224)
    asked = spec.arguments.get("img_size")
    if asked is not None:
        size = list(asked) if isinstance(asked, tuple | list) else [asked, asked]
    return [(2, spec.arguments.get("in_chans", channels), *size)]


def build_transformers(spec: Spec) -> nn.Module:
    """`hf:FOLDER?auto=AutoModelForImageClassification`: a local folder or config.json; nothing is downloaded.

    auto: one of transformers' AutoModel classes, or a class of models such as T5EncoderModel.
    The folder's weights are loaded where it holds any, else they are random. Code in the folder is never run.
    """
    folder, config_file = Path(spec.right), _config_file(spec)
    if not config_file.is_file():
        raise InputError(f"{spec.text}: no such file: {config_file}", fix="give a folder that save_pretrained() wrote")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = _import("transformers", "transformers", spec)
    arguments = dict(spec.arguments)
    auto_name = str(arguments.pop("auto", "AutoModel"))
    auto = getattr(transformers, auto_name, None)
    if auto is None:
        names = [n for n in dir(transformers) if n.startswith("AutoModel") or n.endswith("Model")]
        raise InputError(f"{spec.text}: transformers has no {auto_name}", fix=near(auto_name, names, "try AutoModel"))
    has_weights = config_file.parent == folder and any(
        p.suffix in (".safetensors", ".bin") and p.stem.startswith(("model", "pytorch_model")) for p in folder.iterdir()
    )

    def build(**settings: Any) -> Any:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, **settings)
        if hasattr(config, "use_cache"):
            config.use_cache = False
        if has_weights:
            return auto.from_pretrained(str(folder), config=config, local_files_only=True)
        return (auto.from_config if hasattr(auto, "from_config") else auto._from_config)(config)

    return _build(spec, build, arguments)


def _config_file(spec: Spec) -> Path:
    given = Path(spec.right)
    return given if given.suffix == ".json" else given / "config.json"


def transformers_inputs(spec: Spec, module: nn.Module) -> list[tuple[str, Shape, int]]:
    """(argument name, shape, number of tokens or 0 for real values) of what the model's configuration asks for.

    Of an encoder with a decoder the text that the decoder reads is a second input.
    """
    config: Any = module.config
    name = str(getattr(module, "main_input_name", ""))
    inputs = [_main_input(spec, config, name)]
    if config.is_encoder_decoder and "decoder_input_ids" in inspect.signature(module.forward).parameters:
        inputs.append(("decoder_input_ids", (2, _TOKENS // 2), int(config.vocab_size)))
    return inputs


def _main_input(spec: Spec, config: Any, name: str) -> tuple[str, Shape, int]:
    if name in _TEXT_INPUTS and hasattr(config, "vocab_size"):
        return name, (2, _TOKENS), int(config.vocab_size)
    if name == "input_features" and hasattr(config, "num_mel_bins") and hasattr(config, "max_source_positions"):
        return name, (2, config.num_mel_bins, 2 * config.max_source_positions), 0
    if name == "pixel_values":
        side = getattr(config, "image_size", None) or _processors_size(spec) or _IMAGE_SIDE
        height, width = side if isinstance(side, tuple | list) else (side, side)
        return name, (2, getattr(config, "num_channels", 3), height, width), 0
    raise InputError(f"{spec.text}: what shape its input `{name}` has isn't known", fix="give --input-shape")


def _processors_size(spec: Spec) -> list[int] | None:
    """What the image processor that lies beside the configuration makes of an image: its crop, or its size."""
    try:
        settings = json.loads(_config_file(spec).with_name("preprocessor_config.json").read_text())
    except (OSError, ValueError):
        return None
    size = settings.get("crop_size") or settings.get("size") if isinstance(settings, dict) else None
    if isinstance(size, dict):
        size = [size["height"], size["width"]] if {"height", "width"} <= size.keys() else size.get("shortest_edge")
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    return sides if len(sides) == 2 and all(isinstance(side, int) for side in sides) else None


@contextmanager
def library_warnings_ignored() -> Iterator[None]:
    """Warnings about the library's own defaults and deprecations: a user who names a model can't mend them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _import(module: str, package: str, spec: Spec) -> Any:
    import importlib

    try:
        with library_warnings_ignored():
            return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{spec.text}: {package} can't be imported: {error}", fix=f"pip install {package}") from error


def _named(spec: Spec, choices: list[str], get: Callable[[str], Any]) -> Any:
    if spec.right not in choices:
        fix = near(spec.right, choices, f"python -c 'import {spec.left}' lists its models with list_models()")
        raise InputError(f"{spec.text}: {spec.left} has no model `{spec.right}`", fix=fix)
    return get(spec.right)


def _build(spec: Spec, builder: Callable[..., Any], arguments: Any) -> nn.Module:
    with library_warnings_ignored(), users_code(f"{spec.text}: building the model raised"):
        model: nn.Module = builder(**arguments)
    return model
