"""PyTorch and TensorFlow alive in one process, whatever was imported first, and quiet about it.

PyTorch's triton and TensorFlow each carry an LLVM. Triton's has to be loaded first: after TensorFlow's it aborts the
process, at the first `torch.export`, `import torchvision` or `torch.optim`. So `import translator` calls `guard`: where
TensorFlow isn't loaded yet, triton's library is loaded just before TensorFlow is, whoever imports it; where TensorFlow
came first, triton is hidden, and PyTorch does without. See docs/decisions/0010-one-process.md.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

_NATIVE = "triton._C.libtriton"
_NOISY_LOGGERS = (
    "torch.utils.flop_counter",
    "torch.onnx",
    "torch.export",
    "onnxscript",
    "onnx_ir",
    "jax",
    "absl",
    "timm",
)


def guard() -> None:
    """Make every later import of torch, triton, TensorFlow and Keras safe. Loads none of them; costs microseconds."""
    if "tensorflow" in sys.modules:
        _hide_triton()
    elif not any(isinstance(finder, _BeforeTensorFlow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTensorFlow())


def prepare(*, quiet: bool = False) -> None:
    """Call before importing torch or Keras inside a function. Any number of times.

    quiet: also keep the frameworks' start-up messages and deprecation warnings off the screen (the command line does).
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if quiet else "2")
    guard()
    if quiet:
        _BeforeTensorFlow.quiet = True
        _silence()


def keras_backend() -> str:
    """The backend that Keras runs on, or will run on: "tensorflow", "jax" or "torch". Does not import Keras."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    import json
    from pathlib import Path

    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return str(json.loads((home / "keras.json").read_text()).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"


def versions() -> dict[str, str]:
    """Versions of what takes part in a proof, for its report. Imports none of it."""
    names = ("translator", "torch", "keras", "tensorflow", "onnx", "onnxscript", "numpy")
    return {name: importlib.metadata.version(name) for name in names} | {"backend": keras_backend()}


def _hide_triton() -> None:
    """Let `import triton` fail like a missing package, which PyTorch copes with; not where it is loaded already."""
    if _NATIVE not in sys.modules and not _BeforeTensorFlow.triton_loaded:
        sys.modules["triton"] = None  # type: ignore[assignment]


def _load_triton_library() -> bool:
    """Load triton's shared library, not its Python (0.1 s instead of 0.4 s). False where there is none.

    Its LLVM registers its options as it is loaded; the later `import triton` finds it in memory.
    """
    import ctypes
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return False
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        library = Path(spec.origin).parent / "_C" / f"libtriton{suffix}"
        if library.is_file():
            try:
                ctypes.CDLL(str(library))
            except OSError:
                return False  # `import triton` will fail in the same way, and PyTorch copes
            return True
    return False


class _BeforeTensorFlow:
    """A finder that finds nothing: asked first, it loads triton's library when TensorFlow is about to be imported."""

    quiet = False
    triton_loaded = False

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of `tensorflow` with a silent loader, if asked to be quiet; else None."""
        if name != "tensorflow":
            return None
        if not cls.triton_loaded and _NATIVE not in sys.modules and sys.modules.get("triton", 0) is not None:
            cls.triton_loaded = _load_triton_library()
        if not cls.quiet:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with _stderr_held_back():
                    execute(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Keep what C++ writes to descriptor 2 off the screen (no setting does), and show it if the block fails."""
    import tempfile

    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        screen = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(screen, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)


def _silence() -> None:
    """Warnings that tell a user of the command line nothing: deprecations inside libraries, a GPU that isn't there."""
    import logging
    import warnings

    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings(
        "ignore", module=r"(torch|torchvision|timm|transformers|keras|tensorflow|onnxscript|onnx)\b"
    )
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
