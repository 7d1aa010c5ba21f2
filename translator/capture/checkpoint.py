"""Read checkpoints of tensors, and nothing else: no file is ever allowed to run code.

`.safetensors` and PyTorch's own files (`.pt`, `.pth`, `.ckpt`, `.bin`; always `weights_only=True`). What the file is
shows in its first bytes, not in its suffix.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from translator import runtime
from translator.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "model_ema", "state_dict_ema", "ema_state_dict", "ema", "params_ema",
)  # fmt: skip
_FOREIGN_PARTS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_BROKEN = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, OSError,
    ImportError, ArithmeticError, AssertionError, MemoryError, zipfile.BadZipFile, struct.error,
)  # fmt: skip
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The tensors of a file by state-dict name, and what was understood on the way, a sentence each."""

    path: str
    tensors: Mapping[str, torch.Tensor]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read the tensors of a checkpoint. Wrapped dicts and prefixes that wrappers add are taken off, and said.

    Raises CheckpointError: no such file, empty, truncated, not a checkpoint, or one that needs code to load.
    """
    path = Path(path)
    kind = _recognise(path)
    runtime.prepare()
    content = _read_safetensors(path) if kind == "safetensors" else _read_torch(path, is_zip=kind == "zip")
    state, notes = _unwrap(content, path)
    tensors, more = _tensors_of(state, path)
    renamed, again = _strip_wrappers(tensors, path)
    half = sorted(
        {str(t.dtype).removeprefix("torch.") for t in renamed.values() if t.is_floating_point()} - {"float32"}
    )
    notes += [*more, *again, *([f"holds {', '.join(half)} values"] if half else [])]
    return Checkpoint(path=str(path), tensors=renamed, notes=tuple(notes))


def load_into(module: nn.Module, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Load every tensor into `module`, exactly one for each of its names; returns notes.

    A prefix that all names of one side share is added or taken off where the names fit then, one for one.
    Raises CheckpointError that lists the missing, unexpected and mis-shaped names.
    """
    own = module.state_dict(keep_vars=True)
    own = {name: value for name, value in own.items() if hasattr(value, "shape")}
    tensors, notes = match_names(checkpoint.tensors, own)
    tensors, filled = _fill(tensors, own)
    faults = _faults(tensors, own)
    if tensors.keys() - own.keys() and _takes_older(module, tensors):
        return (*notes, "the model's own loading code took the names of an older version")
    if faults:
        what = f"{checkpoint.path}: does not fit the model"
        raise CheckpointError(
            "\n".join([what, *faults]), fix="give the checkpoint of this architecture, or the factory's arguments"
        )
    casts = {f"{t.dtype} → {own[n].dtype}".replace("torch.", "") for n, t in tensors.items() if t.dtype != own[n].dtype}
    module.load_state_dict(dict(tensors), strict=True)
    return (*notes, *filled, *(f"values were converted {cast}" for cast in sorted(casts)))


def match_names(
    tensors: Mapping[str, torch.Tensor], expected: Iterable[str]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors under the names that are expected, if a leading part that all share makes the difference."""
    want, got = set(expected), dict(tensors)
    if got.keys() == want or not got or not want:
        return got, []
    for prefix in _prefixes(got):
        stripped = {name.removeprefix(prefix): t for name, t in got.items()}
        if stripped.keys() == want:
            return stripped, [f"the prefix `{prefix}` was taken off all names"]
    for prefix in _prefixes(want):
        added = {prefix + name: t for name, t in got.items()}
        if added.keys() == want:
            return added, [f"the prefix `{prefix}` was put before all names"]
    return got, []


def _prefixes(names: Iterable[str]) -> list[str]:
    """The leading parts, shortest first, that all names share: "model.", "model.net." …"""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return [".".join(shared[: i + 1]) + "." for i in range(len(shared))]


def _recognise(path: Path) -> str:
    """ "safetensors", "zip" (torch.save since 1.6) or "pickle" (before), by content."""
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder, not a checkpoint file", fix="name the file in it")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such file", fix="give the path of a .safetensors, .pt, .pth or .ckpt file"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty", fix="save or download it again")
    if head.startswith(b"\x89HDF"):
        raise CheckpointError(f"{path}: an HDF5 file (Keras weights), not a PyTorch checkpoint", fix=_FIX_KERAS)
    if head.startswith(b"PK\x03\x04"):
        return _recognise_zip(path)
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32):
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle"
    raise CheckpointError(
        f"{path}: not a checkpoint: its content is neither PyTorch's nor safetensors'", fix=_FIX_FORMATS
    )


_FIX_KERAS = "translator transfer FROM TO moves the weights of a Keras model"
_FIX_FORMATS = "give a .safetensors file, or one written by torch.save(model.state_dict(), …)"


def _recognise_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _truncated(path) from error
    leaves = {name.rpartition("/")[2] for name in names}
    if "config.json" in leaves and "metadata.json" in leaves:
        raise CheckpointError(f"{path}: a Keras model, not a PyTorch checkpoint", fix=_FIX_KERAS)
    if "constants.pkl" in leaves:
        raise CheckpointError(
            f"{path}: a TorchScript archive: it holds code, which is never run",
            fix="where you trust it: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')",
        )
    if "data.pkl" not in leaves:
        raise CheckpointError(f"{path}: a zip archive, but not one that torch.save writes", fix=_FIX_FORMATS)
    return "zip"


def _truncated(path: Path, otherwise: str = "") -> CheckpointError:
    return CheckpointError(f"{path}: the file is damaged or cut off{otherwise}", fix="save or download it again")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, *_BROKEN) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file: {error}", fix="save or download it again"
        ) from error


def _read_torch(path: Path, *, is_zip: bool) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the file's pickle protocol: it is read, or refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except _BROKEN as error:
        needed = _code_needed(path, error) if is_zip or "weights_only" in str(error) else []
        if not needed:
            raise _truncated(path, "" if is_zip else ", or torch.save did not write it") from error
        whole = [
            n for n in needed if not n.startswith(("numpy.", "argparse.", "collections.", "builtins.", "pathlib."))
        ]
        inside = ".state_dict()" if whole else "['state_dict']"
        raise CheckpointError(
            f"{path}: holds more than tensors: loading it would run code of {', '.join(needed[:6])}"
            f"{' …' if len(needed) > 6 else ''}; refused",
            fix="in the program that wrote it: torch.save(model.state_dict(), 'weights.pt'); or, where you trust the "
            f"file: torch.save(torch.load({path.name!r}, weights_only=False){inside}, 'weights.pt')",
        ) from error


def _code_needed(path: Path, error: BaseException) -> list[str]:
    """Names of the functions and classes that the file would call, without calling them; [] where it is just broken."""
    import torch

    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except _BROKEN:
        names = []
    if names:
        return sorted(names)
    text = str(error)
    if not isinstance(error, pickle.UnpicklingError) or "weights_only" not in text:
        return []
    marker = "GLOBAL "
    return [text.split(marker, 1)[1].split(" ")[0].rstrip(".,`")] if marker in text else []


def _unwrap(content: Any, path: Path) -> tuple[Mapping[str, Any], list[str]]:
    """The state dict inside what a training script saved, and where it was found."""
    notes: list[str] = []
    where: list[str] = []
    while True:
        if not isinstance(content, Mapping):
            inside = f"its entry {'.'.join(where)}" if where else "it"
            raise CheckpointError(f"{path}: {inside} is a {type(content).__name__}, not a state dict", fix=_FIX_FORMATS)
        if any(_is_tensor(v) for v in content.values()):
            break
        chosen = _choose(content, path)
        others = [k for k in content if k != chosen and _holds_tensors(content[k])]
        where.append(chosen)
        content = content[chosen]
        left = f" ({', '.join(others)} left out)" if others else ""
        notes.append(f"the state dict was found under the key `{'.'.join(where)}`{left}")
    return content, notes[-1:]


def _choose(content: Mapping[Any, Any], path: Path) -> str:
    holding = [k for k, v in content.items() if isinstance(k, str) and _holds_tensors(v)]
    for name in _WRAPPERS:
        if name in holding:
            return name
    candidates = [k for k in holding if not any(word in k.lower() for word in ("optim", "sched", "scaler", "rng"))]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        fix = f"save one alone: torch.save(torch.load(FILE)[{candidates[0]!r}], …)"
        raise CheckpointError(f"{path}: holds several state dicts: {', '.join(candidates)}", fix=fix)
    keys = ", ".join(str(k) for k in list(content)[:12]) or "nothing"
    raise CheckpointError(f"{path}: holds no tensors (it has {keys})", fix=_FIX_FORMATS)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(_is_tensor(v) or _holds_tensors(v) for v in value.values())


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _tensors_of(state: Mapping[Any, Any], path: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    tensors = {str(k): v for k, v in state.items() if _is_tensor(v)}
    left = [str(k) for k in state if str(k) not in tensors]
    for name, tensor in tensors.items():
        if tensor.is_quantized or str(tensor.layout) != "torch.strided" or tensor.device.type == "meta":
            raise CheckpointError(f"{path}: {name} is quantized, sparse or empty ({tensor.layout}, {tensor.dtype})")
    return tensors, [f"entries that are no tensors were left out: {', '.join(left[:_SHOWN])}"] if left else []


def _strip_wrappers(tensors: dict[str, torch.Tensor], path: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Take off what DataParallel, torch.compile, FSDP and averaged models put into the names of what they wrap."""
    notes: list[str] = []
    names = {name: name for name in tensors}
    for part in _FOREIGN_PARTS:
        if any(part in name for name in names.values()):
            names = {old: new.replace(part, "") for old, new in names.items()}
            notes.append(f"`{part}` was taken out of the names")
    if "n_averaged" in names and len(names) > 1:
        del names["n_averaged"]
        notes.append("`n_averaged` of an averaged model was left out")
    while all(new.startswith("module.") for new in names.values()):
        names = {old: new.removeprefix("module.") for old, new in names.items()}
        notes.append("the prefix `module.` was taken off all names")
    renamed = {new: tensors[old] for old, new in names.items()}
    if len(renamed) != len(names):
        raise CheckpointError(f"{path}: two tensors have the same name once the wrappers' prefixes are off")
    return renamed, notes


def _fill(
    tensors: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Add what a checkpoint may rightly leave out: the second name of a tied tensor, and BatchNorm's step counters."""
    notes: list[str] = []
    full = dict(tensors)
    counters = ".num_batches_tracked"
    has_counters = any(name.endswith(counters) for name in tensors)
    present = {id(own[name]): name for name in own if name in tensors}
    for name in own.keys() - tensors.keys():
        if id(own[name]) in present:
            full[name] = tensors[present[id(own[name])]]
            notes.append(f"{name} is tied to {present[id(own[name])]}, which the file holds")
        elif name.endswith(counters) and not has_counters:
            full[name] = own[name].detach()
    if any(name.endswith(counters) for name in full.keys() - tensors.keys()):
        notes.append("the file has no num_batches_tracked (PyTorch before 0.4.1): the model's own are kept")
    return full, sorted(notes)


def _faults(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """The lines that say what does not fit."""
    both = own.keys() & tensors.keys()
    rows = {
        "missing from the file": [f"{n} {tuple(own[n].shape)}" for n in own.keys() - tensors.keys()],
        "not in the model": [f"{n} {tuple(tensors[n].shape)}" for n in tensors.keys() - own.keys()],
        "of another shape": [
            f"{n}: file {tuple(tensors[n].shape)}, model {tuple(own[n].shape)}"
            for n in both
            if tensors[n].shape != own[n].shape
        ],
        "of another kind": [
            f"{n}: file {tensors[n].dtype}, model {own[n].dtype}"
            for n in both
            if (tensors[n].is_floating_point(), tensors[n].is_complex())
            != (own[n].is_floating_point(), own[n].is_complex())
        ],
    }
    return [line for title, names in rows.items() if names for line in _listing(title, sorted(names))]


def _listing(title: str, rows: list[str]) -> list[str]:
    more = [f"    … and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []
    return [f"  {len(rows)} {title}:", *(f"    {row}" for row in rows[:_SHOWN]), *more]


def _takes_older(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether the module's own loading hooks make all names fit: some rename those of older versions."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except (RuntimeError, KeyError, TypeError):
        return False
    return True
