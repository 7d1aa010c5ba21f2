"""SOURCE: the PyTorch model that the user names, made ready: built, run once on example inputs, weights loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from translator import runtime
from translator.capture import examples, libraries
from translator.capture.checkpoint import load_into, read_checkpoint
from translator.capture.modes import evaluating
from translator.capture.program import build_program
from translator.config import SourceRequest
from translator.errors import InputError, UnsupportedError
from translator.user_code import SOURCE_FORMS, Spec, a, make, owner, parse_spec, users_code

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = {
    "torchvision": libraries.build_torchvision,
    "timm": libraries.build_timm,
    "hf": libraries.build_transformers,
}
_NAMED = 10
_HALF = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSource:
    """A PyTorch model in eval mode, arguments that it was run with, and what was understood on the way.

    name: of the model, from the spec ("resnet50"). notes: a sentence each, for the report.
    """

    module: nn.Module
    example_inputs: tuple[Any, ...]
    example_kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str
    spec: str
    notes: tuple[str, ...] = ()


def load_source(
    spec: str,
    *,
    weights: str | Path | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    input_dtypes: Sequence[str] = (),
    seed: int = 0,
) -> LoadedSource:
    """Build the model that `spec` names, load `weights` into it, and run it once on example inputs.

    input_shapes: with the batch; without them the model's own `example_inputs()` is asked, then its library.
    seed: of the initial weights and of random inputs; no global generator is touched.
    Raises InputError or UnsupportedError, with the user's own line where code of theirs raised.
    """
    request = SourceRequest(
        spec=spec,
        weights=None if weights is None else Path(weights),
        input_shapes=tuple(tuple(shape) for shape in input_shapes or ()),
        input_dtypes=tuple(input_dtypes),
        seed=seed,
    )
    return load(request)


def load(request: SourceRequest) -> LoadedSource:
    """`load_source` for a request."""
    runtime.prepare()
    spec = parse_spec(request.spec)
    _refuse_files(spec)
    with _seeded(request.seed):
        made = _build(spec, request.seed)
    return ready(made, spec, request)


def ready(made: Any, spec: Spec, request: SourceRequest) -> LoadedSource:
    """The second half of `load`, for what a factory returned."""
    if _is_onnx(spec):
        module, notes, widened = made.network.eval(), list(made.notes), []
        example = made.examples(request.input_shapes, request.input_dtypes, seed=request.seed)
    else:
        module, notes = _module_of(made, spec)
        widened = _widened(module)
        example = find_examples(module, spec, request, widen=bool(widened))
    if request.weights is not None:
        checkpoint = read_checkpoint(request.weights)
        if _is_onnx(spec):
            checkpoint = replace(checkpoint, tensors={made.renamed.get(n, n): t for n, t in checkpoint.tensors.items()})
        notes += [*checkpoint.notes, *load_into(module, checkpoint)]
    check_finite(module, str(request.weights or spec.text))
    return LoadedSource(
        module=module,
        example_inputs=example.args,
        example_kwargs=example.kwargs,
        name=_model_name(spec),
        spec=spec.text,
        notes=(*notes, *widened, *example.notes),
    )


def from_module(
    made: Any, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], *, name: str | None = None,
    weights: str | Path | None = None,
) -> LoadedSource:  # fmt: skip
    """A module of the user's own with example inputs of theirs. It stays as it is, but for the weights.

    One in half precision or on another device is copied, and the copy is translated.
    Raises InputError, UnsupportedError as `load` does.
    """
    title = name or type(made).__name__
    module, notes = _unwrapped(made, title)
    if weights is not None:
        checkpoint = read_checkpoint(Path(weights))
        notes += [*checkpoint.notes, *load_into(module, checkpoint)]
    check_finite(module, title)
    widened: list[str] = []
    if any(t.device.type != "cpu" or str(t.dtype).removeprefix("torch.") in _HALF for t in _tensors(module)):
        module = copy.deepcopy(module).cpu()
        widened = _widened(module)
    with evaluating(module):
        found = examples.from_offer(module, (inputs, dict(kwargs)), title, widen=bool(widened))
    return LoadedSource(
        module=module,
        example_inputs=found.args,
        example_kwargs=found.kwargs,
        name=title,
        spec="",
        notes=(*notes, *widened, *found.notes),
    )


def find_examples(module: nn.Module, spec: Spec, request: SourceRequest, *, widen: bool = False) -> examples.Examples:
    """Example inputs that the model was run with: of the shapes given, else what it or its Python module offers, else
    of the size that its library names. widen: half-precision ones become float32.
    """
    seed = request.seed
    if request.input_shapes:
        dtypes = ["float32" if widen and dtype in _HALF else dtype for dtype in request.input_dtypes]
        return examples.from_shapes(module, request.input_shapes, dtypes, seed=seed)
    offer = getattr(module, "example_inputs", None)
    if offer is None and spec.left not in LIBRARIES:
        offer = getattr(owner(spec), "example_inputs", None)
    if offer is not None:
        with users_code(f"{spec.text}: example_inputs() raised"), _seeded(seed):
            offer = offer() if callable(offer) else offer
        return examples.from_offer(module, offer, spec.text, widen=widen)
    match spec.left:
        case "torchvision":
            return examples.from_shapes(module, _sizes(libraries.torchvision_shapes(spec, module)), seed=seed)
        case "timm":
            return examples.from_shapes(module, _sizes(libraries.timm_shapes(spec, module)), seed=seed)
        case "hf":
            kwargs = {
                name: examples.random_inputs(_sizes([shape]), ["int64" if n else "float32"], seed=seed, below=n)[0]
                for name, shape, n in libraries.transformers_inputs(spec, module)
            }
            examples.check_runs(module, (), kwargs)
            return examples.Examples(args=(), kwargs=kwargs)
    raise InputError(
        f"{spec.text}: the shape of the model's input isn't known",
        fix="give --input-shape, with the batch, once for each input; or let the module offer example_inputs()",
    )


def check_finite(module: nn.Module, where: str) -> None:
    """Refuse NaN and infinity in parameters and BatchNorm statistics, and NaN in other buffers."""
    import torch
    from torch.nn.modules.batchnorm import _NormBase

    statistics = {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if isinstance(part, _NormBase)
        for name, _ in part.named_buffers(recurse=False)
    }
    strict = statistics | {name for name, _ in module.named_parameters(remove_duplicate=False)}
    bad: list[str] = []
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        values = tensor.detach()
        if torch.isnan(values).any() or (name in strict and torch.isinf(values).any()):
            bad.append(f"{name} ({int((~torch.isfinite(values)).sum())} of {values.numel()})")
    if bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise InputError(
            f"{where}: NaN or infinite values in {', '.join(bad[:_NAMED])}{more}",
            fix="training has diverged, or the file is damaged: use an earlier checkpoint",
        )


def _refuse_files(spec: Spec) -> None:
    """Say at once what can't be a source: files of a kind that isn't supported, missing files, bare names."""
    path = Path(spec.left)
    if spec.right or spec.is_python_file or spec.left in LIBRARIES:
        return
    if path.suffix in (".pt2", ".onnx"):
        if not path.is_file():
            raise InputError(f"{spec.text}: no such file", fix=f"give {SOURCE_FORMS}")
        return
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors"):
        raise InputError(
            f"{spec.text}: a checkpoint holds weights, not an architecture",
            fix=f"translator … file.py:factory --weights {spec.left}",
        )
    raise InputError(f"{spec.text}: not a source", fix=f"give {SOURCE_FORMS}")


def _build(spec: Spec, seed: int) -> Any:
    if spec.left in LIBRARIES:
        return LIBRARIES[spec.left](spec)
    if spec.left.endswith(".pt2"):
        return build_program(Path(spec.left))
    if _is_onnx(spec):
        from translator.capture.onnx_file import OnnxFile

        return OnnxFile(Path(spec.left))
    import torch

    return make(spec, "nn.Module", seed=lambda: torch.manual_seed(seed))


def needs_pytorch(request: SourceRequest, what: str) -> None:
    """Refuse an ONNX file where a PyTorch model is needed. what: what needs it, and why."""
    if _is_onnx(parse_spec(request.spec)):
        raise UnsupportedError(
            f"{request.spec}: {what}",
            reason="export",
            fix="name the PyTorch model itself; `translator convert` takes the .onnx file",
        )


def _is_onnx(spec: Spec) -> bool:
    return spec.left.endswith(".onnx") and not spec.right


def _module_of(made: Any, spec: Spec) -> tuple[nn.Module, list[str]]:
    """The nn.Module itself, out of what wraps it, in eval mode on the CPU."""
    module, notes = _unwrapped(made, spec.text)
    return module.cpu().eval(), notes


def _unwrapped(made: Any, text: str) -> tuple[nn.Module, list[str]]:
    import torch
    from torch import nn

    notes: list[str] = []
    while isinstance(made, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(made, "_orig_mod"):
        notes.append(f"taken out of its {type(made).__name__}")
        made = made._orig_mod if hasattr(made, "_orig_mod") else made.module
    if isinstance(made, torch.jit.ScriptModule):
        raise UnsupportedError(
            f"{text}: returned a TorchScript module, whose Python code is gone",
            reason="export",
            fix="return the nn.Module that was scripted or traced",
        )
    if not isinstance(made, nn.Module):
        raise InputError(f"{text}: returned {a(made)}, not an nn.Module", fix="return the model itself")
    if any(p.device.type == "meta" for p in made.parameters() if not _lazy(p)):
        raise InputError(f"{text}: its weights are on the meta device, without values", fix="build it on the CPU")
    return made, notes


def _tensors(module: nn.Module) -> Iterator[Any]:
    yield from (t for t in (*module.parameters(), *module.buffers()) if not _lazy(t))


def _lazy(parameter: Any) -> bool:
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(parameter))


def _widened(module: nn.Module) -> list[str]:
    """Half-precision models become float32, which holds every one of their values exactly."""
    import torch

    half = [name for name in _HALF if any(t.dtype is getattr(torch, name) for t in module.state_dict().values())]
    if not half:
        return []
    module.float()
    return [f"the model's {', '.join(half)} values were widened to float32, exactly"]


def _sizes(shapes: Sequence[Sequence[int | None]]) -> list[tuple[int, ...]]:
    return [tuple(2 if d is None else d for d in shape) for shape in shapes]


def _model_name(spec: Spec) -> str:
    if spec.left == "hf":
        path = Path(spec.right)
        return (path.parent if path.suffix else path).resolve().name
    return spec.right.rpartition(".")[2] or Path(spec.left).stem


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random initial weights that depend on the seed alone; the global generator is given back as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
