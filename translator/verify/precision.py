"""The same two models computing in float64, without a copy of either: the weights stay the float32 numbers they are.

Keras: every layer gets a dtype policy that computes in float64 on its float32 variables. PyTorch: parameters, buffers
and tensors kept as plain attributes are widened in place (exact) and narrowed again afterwards (exact, too).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import keras
import torch
from torch.overrides import TorchFunctionMode

from translator.verify.exact_casts import exact_casts
from translator.verify.exact_tensorflow import exact_activations, exact_pools
from translator.verify.torch_record import map_tensors

_WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_WIDER |= {torch.float16: torch.float64, torch.bfloat16: torch.float64}
_MAKERS = ("arange", "zeros", "ones", "full", "linspace", "logspace", "eye")
_WINDOWS = ("hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window")
_COMPUTED = frozenset(getattr(torch, name) for name in (*_MAKERS, *_WINDOWS))
"""What makes a tensor out of numbers: in float64 they are those numbers."""

_HELD = frozenset(getattr(torch, name) for name in ("tensor", "as_tensor", "empty", "rand", "randn"))
"""What holds numbers as float32: they stay these, widened."""

_RMS_NORMS = (torch.rms_norm, torch.nn.functional.rms_norm)
_CONVOLUTIONS = frozenset(getattr(torch, f"conv{kind}{n}d") for kind in ("", "_transpose") for n in (1, 2, 3))


class _Policy(keras.DTypePolicy):  # type: ignore[misc]
    """Compute in float64; the variables keep their dtype."""

    def __init__(self, variable_dtype: str) -> None:
        super().__init__("float32")
        self._compute_dtype, self._variable_dtype = "float64", variable_dtype


@contextmanager
def keras_float64(operations: Iterable[keras.Operation]) -> Iterator[None]:
    """Let these operations (and the layers inside them) compute in float64 while the block runs."""
    undo: list[Callable[[], None]] = []
    floatx = keras.config.floatx()
    with ExitStack() as stack:
        stack.callback(lambda: [step() for step in reversed(undo)])
        stack.callback(keras.config.set_floatx, floatx)
        keras.config.set_floatx("float64")
        if keras.config.backend() == "jax":
            import jax

            stack.enter_context(jax.enable_x64(new_val=True))
        if keras.config.backend() == "tensorflow":
            stack.enter_context(_exact_resize())
            stack.enter_context(exact_activations())
            stack.enter_context(exact_casts())
            stack.enter_context(exact_pools())
        for operation in operations:
            _widen(operation, undo)
        yield


@contextmanager
def torch_float64(module: torch.nn.Module) -> Iterator[None]:
    """Let `module` compute in float64 while the block runs; afterwards every tensor is bit for bit what it was."""
    changed: list[tuple[torch.Tensor, torch.dtype]] = []
    try:
        for tensor in tensors_of(module):
            if tensor.dtype in _WIDER:
                changed.append((tensor, tensor.dtype))
                tensor.data = tensor.data.to(_WIDER[tensor.dtype])
        with asks_for_float64():
            yield
    finally:
        for tensor, dtype in changed:
            tensor.data = tensor.data.to(dtype)


def only_float64(module: torch.nn.Module) -> bool:
    """Whether the module can't compute in float32: the tensors that it is made of are float64."""
    return {t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()} == {torch.float64}


def widen(module: torch.nn.Module) -> None:
    """Make every tensor of `module`, a copy, float64 for good; `asks_for_float64` belongs around what it computes."""
    for tensor in tensors_of(module):
        if tensor.dtype in _WIDER:
            tensor.data = tensor.data.to(_WIDER[tensor.dtype])


@contextmanager
def asks_for_float64() -> Iterator[None]:
    """What asks for float32 by name inside the block gets float64, with the limits of float32.

    A mask made of `torch.finfo(x.dtype).min` keeps the number that it has in the model itself.
    """
    limits = torch.finfo

    def of_float32(dtype: torch.dtype | None = None) -> Any:
        return limits(torch.float32 if dtype in (None, torch.float64) else dtype)

    torch.finfo = of_float32  # type: ignore[misc, assignment]
    try:
        with _nothing_kept(), _Float64Mode():
            yield
    finally:
        torch.finfo = limits  # type: ignore[misc]


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Let transformers compute anew what it keeps by its arguments (a dtype among them), as it does when traced."""
    library = sys.modules.get("transformers.pytorch_utils")
    if library is None:
        yield
    else:
        with patch.object(library, "is_torchdynamo_compiling", lambda: True):
            yield


def tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    """Every tensor that the module holds, once: parameters, buffers, and plain attributes (also in lists and dicts)."""
    found: dict[int, torch.Tensor] = {}
    for child in module.modules():
        for holder in (child._parameters, child._buffers, child.__dict__):
            for value in holder.values():
                for tensor in _tensors_in(value):
                    found.setdefault(id(tensor), tensor)
    return list(found.values())


class _Float64Mode(TorchFunctionMode):
    """`x.float()` and `x.to(torch.float32)` in a forward mean "full precision": here that is float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _HELD or func in _COMPUTED:
            made = func(*args, **kwargs)
            if made.dtype is not torch.float32:
                return made
            return made.double() if func in _HELD else func(*args, **(kwargs | {"dtype": torch.float64}))
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        if func in _RMS_NORMS and (args[3] if len(args) > 3 else kwargs.get("eps")) is None:
            args, kwargs = args[:3], kwargs | {"eps": torch.finfo(torch.float32).eps}  # the model's own, not float64's
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()}
        if func in _CONVOLUTIONS and (args[6] if len(args) > 6 else kwargs.get("groups", 1)) > 1:
            return _on_one_thread(func, args, kwargs)
        try:
            made = func(*args, **kwargs)
        except RuntimeError:
            wide = map_tensors(_widened, (args, kwargs))
            if all(a is b for a, b in zip(_tensors_in(wide), _tensors_in((args, kwargs)), strict=True)):
                raise
            made = func(*wide[0], **wide[1])  # float32 numbers from elsewhere (numpy's) beside those of the run
        given = list(_tensors_in((args, kwargs)))
        if getattr(made, "dtype", None) is not torch.float32 or _lies_in_one_of(made, given):
            return made
        if not any(map(_is_float, given)):
            return _of_whole_numbers(func, args, kwargs)
        args, kwargs = map_tensors(_widened, (args, kwargs))
        return func(*args, **kwargs)  # of numbers from elsewhere alone, such as a table that a function keeps


def _of_whole_numbers(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What PyTorch makes floats of its default dtype of: the root of an integer, the quotient of two."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return func(*args, **kwargs)
    finally:
        torch.set_default_dtype(before)


def _lies_in_one_of(made: torch.Tensor, given: Iterable[torch.Tensor]) -> bool:
    """Whether a result is a view of what was given, or was written into it."""
    return any(made.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() for tensor in given)


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.dtype is torch.float32 else tensor


def _is_float(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point()


def _on_one_thread(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """PyTorch computes a grouped convolution in float64 group by group; waking threads for each costs 20 to 100 times
    what is computed, most of all on a machine that does other work, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return func(*args, **kwargs)
    finally:
        torch.set_num_threads(threads)


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)) and value and not isinstance(value[0], torch.nn.Module):
        for item in value:
            yield from _tensors_in(item)
    elif type(value) is dict:
        for item in value.values():
            if isinstance(item, torch.Tensor):
                yield item


def _widen(operation: keras.Operation, undo: list[Callable[[], None]]) -> None:
    if isinstance(operation, keras.layers.Layer):
        for layer in operation._flatten_layers(include_self=True, recursive=True):
            policy = layer.dtype_policy
            if isinstance(policy, _Policy) or not policy.compute_dtype or "float" not in policy.compute_dtype:
                continue
            layer.dtype_policy = _Policy(policy.variable_dtype)
            undo.append(partial(setattr, layer, "dtype_policy", policy))
    elif getattr(operation, "dtype", None) == "float32":  # ops.cast, ops.one_hot …
        operation.dtype = "float64"
        undo.append(partial(setattr, operation, "dtype", "float32"))


@contextmanager
def _exact_resize() -> Iterator[None]:
    """TensorFlow resizes in float32 whatever it is given: do bilinear resizing as two matrix products instead.

    The float32 run judges TensorFlow's own function.
    """
    from keras.src.backend import image

    original = image.resize

    def resize(images: Any, size: Any, **options: Any) -> Any:
        plain = not any(options.get(k) for k in ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio"))
        last = (options.get("data_format") or keras.config.image_data_format()) == "channels_last"
        bilinear = options.get("interpolation", "bilinear") == "bilinear"
        images = keras.ops.convert_to_tensor(images)
        if not (plain and last and bilinear and keras.backend.standardize_dtype(images.dtype) == "float64"):
            return original(images, size, **options)
        rows = _interpolation(int(images.shape[-3]), int(size[0]))
        columns = _interpolation(int(images.shape[-2]), int(size[1]))
        return keras.ops.einsum("ph,qw,...hwc->...pqc", rows, columns, images)

    image.resize = resize
    try:
        yield
    finally:
        image.resize = original


def _interpolation(before: int, after: int) -> Any:
    """The (after, before) matrix of linear interpolation at half-pixel centres, the border repeated."""
    centres = ((torch.arange(after, dtype=torch.float64) + 0.5) * before / after - 0.5).clamp(0, before - 1)
    low = centres.floor().long()
    weights = torch.zeros(after, before, dtype=torch.float64)
    index = torch.arange(after)
    share = centres - low
    weights[index, low] += 1 - share
    weights[index, (low + 1).clamp(max=before - 1)] += share
    return weights.numpy()
