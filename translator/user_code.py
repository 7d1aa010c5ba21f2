"""Code that the user names: find it, import it, call it, and say where it failed.

`file.py:factory` and `package.module:factory`, each with `?argument=value`, for PyTorch and Keras models alike.
Nothing here imports a framework.
"""

from __future__ import annotations

import ast
import copy
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from translator.errors import InputError, TranslatorError, Where

_OURS = str(Path(__file__).parent)
_LIBRARIES = (sysconfig.get_paths()["purelib"], sysconfig.get_paths()["stdlib"], _OURS, "<frozen", "<string>")
_imported_from: dict[str, Path] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A parsed SOURCE or KERAS argument: `left:right?arguments`. right is "" for a plain file."""

    text: str
    left: str
    right: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_python_file(self) -> bool:
        """Whether the left side is a path, rather than a module that Python finds."""
        return self.left.endswith(".py")


def parse_spec(text: str) -> Spec:
    """Split `left:right?name=value&name=value`; values are Python literals, or else plain strings.

    Raises InputError for an argument without "=" or given twice.
    """
    head, _, query = text.partition("?")
    left, colon, right = head.rpartition(":")
    if not colon:
        left, right = head, ""
    arguments: dict[str, Any] = {}
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"{text}: `{item}` is not an argument", fix="write arguments as ?name=value&other=value")
        if name in arguments:
            raise InputError(f"{text}: the argument `{name}` is given twice")
        arguments[name] = _literal(value)
    return Spec(text=text, left=left, right=right, arguments=arguments)


def load_object(spec: Spec, kind: str) -> Any:
    """What `spec` names: an attribute of a Python file or of an importable module. `kind` says what a user wants of it.

    Raises InputError where the file, the module or the name isn't there, or the code raises while it is imported.
    """
    module = import_file(Path(spec.left), spec.text) if spec.is_python_file else _import_module(spec)
    if not spec.right:
        raise InputError(
            f"{spec.text}: names no factory", fix=_offer(f"write {spec.left}:NAME", _public_names(module), "it has")
        )
    value: Any = module
    for part in spec.right.split("."):
        if not hasattr(value, part):
            raise InputError(
                f"{spec.text}: {spec.left} has no `{spec.right}`",
                fix=near(spec.right, _public_names(module), f"name a {kind} that {spec.left} defines"),
            )
        value = getattr(value, part)
    return value


def owner(spec: Spec) -> ModuleType:
    """The module that `spec.left` names, imported before by `load_object`."""
    return sys.modules[_module_name(Path(spec.left)) if spec.is_python_file else spec.left]


def make(spec: Spec, framework: str, *, seed: Callable[[], object] = lambda: None) -> Any:
    """The model that `spec` names: what a factory returns, or a copy of the object where it is a model already.

    framework: "nn.Module" or "keras.Model" or both, for messages. What comes back may still be anything.
    seed: called before the import and again before the factory, whose random numbers shall not depend on whether the
    file was imported before.
    """
    seed()
    found = load_object(spec, f"factory or {framework}")
    if not inspect.isclass(found) and (hasattr(found, "parameters") or hasattr(found, "weights")):
        if spec.arguments:
            raise InputError(f"{spec.text}: `{spec.right}` is a model already, it takes no arguments")
        return copy.deepcopy(found) if hasattr(found, "parameters") else found
    if not callable(found):
        raise InputError(
            f"{spec.text}: `{spec.right}` is {a(found)}, not a factory",
            fix=f"name a function that returns the model, a class of {framework}, or a model",
        )
    seed()
    return call_factory(spec, found)


def a(value: Any) -> str:
    """What a value is, for messages: "None", "a dict with the keys …", "an int"."""
    if value is None:
        return "None"
    name = type(value).__name__
    text = f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
    return f"{text} with the keys {', '.join(map(str, list(value)[:8]))}" if isinstance(value, Mapping) else text


def call_factory(spec: Spec, factory: Callable[..., Any]) -> Any:
    """Call the factory with the arguments of the spec. Raises InputError: wrong arguments, or the factory raised."""
    try:
        inspect.signature(factory).bind(**spec.arguments)
    except TypeError as error:
        raise InputError(
            f"{spec.text}: {error}", fix=f"give arguments as ?name=value; it takes {_signature(factory)}"
        ) from error
    except ValueError:
        pass  # a builtin without a signature: calling it will tell
    with _on_path(_folder(spec)), users_code(f"{spec.text}: the factory raised"):
        return factory(**spec.arguments)


@contextmanager
def users_code(what: str, *, fix: str = "") -> Iterator[None]:
    """Turn anything that code we don't own raises into an InputError that names the user's own line."""
    try:
        yield
    except TranslatorError:
        raise
    except (Exception, SystemExit) as error:
        where = Where(source=user_line(error))
        raise InputError(f"{what} {describe(error)}", where=where, fix=fix) from error


_OUR_NAME = re.compile(r"^_translator_\w+_[0-9a-f]{12}\.")
"""Of a file's module, before the name of an error that the file defines."""


def describe(error: BaseException) -> str:
    """`Kind: message`, without a traceback, of at most 2,000 characters."""
    text = _OUR_NAME.sub("", "".join(traceback.format_exception_only(error)).strip())
    if isinstance(error, SyntaxError):
        text = f"SyntaxError: {error.msg}"
    return text if len(text) <= 2000 else text[:2000] + " …"


def user_line(error: BaseException) -> str:
    """`resnet.py, line 41, in forward`: the innermost frame of the user's own code; "" if there is none.

    Own is what lies outside the standard library, installed packages and this package; failing that, the innermost
    frame of an installed package other than torch itself.
    """
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}, line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((_OURS, "<"))]
    own = [f for f in frames if not f.filename.startswith(_LIBRARIES)]
    torch = str(Path(_LIBRARIES[0]) / "torch") + "/"
    library = [f for f in frames if f.filename.startswith(_LIBRARIES[0]) and not f.filename.startswith(torch)]
    for frame in (own or library)[-1:]:
        return f"{frame.filename}, line {frame.lineno}, in {frame.name}"
    return ""


def near(name: str, choices: Iterable[str], otherwise: str) -> str:
    """A line for `fix:`: the names that look like `name`, or `otherwise`."""
    found = difflib.get_close_matches(name, list(choices), n=5, cutoff=0.6)
    return f"did you mean {', '.join(found)}?" if found else otherwise


def import_file(path: Path, text: str) -> ModuleType:
    """Import a Python file under a name of its own; its folder is on `sys.path` while it is imported."""
    if not path.is_file():
        raise InputError(f"{text}: no such file: {path}", fix="give the path of a Python file, as path/file.py:factory")
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{text}: {path} can't be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _on_path(path.resolve().parent), users_code(f"{text}: importing {path} raised", fix=_FIX_IMPORT):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


_FIX_IMPORT = "the file must import on its own: python -c 'import …' in its folder shows the same"


def _import_module(spec: Spec) -> ModuleType:
    root = spec.left.partition(".")[0]
    if not all(part.isidentifier() for part in spec.left.split(".")):
        raise InputError(f"{spec.text}: neither a file nor a module that can be imported", fix=SOURCE_FORMS)
    with _on_path(Path.cwd()), users_code(f"{spec.text}: importing {spec.left} raised", fix=_FIX_IMPORT):
        try:
            return importlib.import_module(spec.left)
        except ModuleNotFoundError as error:
            if error.name is None or not (spec.left + ".").startswith(error.name + "."):
                raise
            what = f"{spec.text}: there is no module `{error.name}`"
            raise InputError(what, fix=f"install the package `{root}`, or run where it can be imported") from error


SOURCE_FORMS = (
    "torchvision:NAME, timm:NAME, hf:FOLDER, program.pt2, model.onnx, file.py:factory or package.module:factory, "
    "with arguments as ?name=value&other=value"
)


@contextmanager
def _on_path(folder: Path | None) -> Iterator[None]:
    """Put `folder` first on `sys.path`, and remember which modules came from it.

    Two files from two folders may each import a `layers.py` beside them: the other folder's is forgotten first.
    """
    if folder is None:
        yield
        return
    for name, home in list(_imported_from.items()):
        root = name.partition(".")[0]
        if home != folder and ((folder / f"{root}.py").exists() or (folder / root / "__init__.py").exists()):
            sys.modules.pop(name, None)
            del _imported_from[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin and Path(origin).is_relative_to(folder) and not origin.startswith(_LIBRARIES):
                _imported_from[name] = folder


def _folder(spec: Spec) -> Path | None:
    return Path(spec.left).resolve().parent if spec.is_python_file else None


def _module_name(path: Path) -> str:
    """A name of its own for each file and each state of it: a file that was edited is imported again."""
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()[:12]
    return f"_translator_{path.stem}_{digest}"


def _public_names(module: ModuleType) -> list[str]:
    own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__]
    return sorted(n for n in own if not n.startswith("_"))


def _offer(first: str, names: list[str], has: str) -> str:
    return f"{first}; {has} {', '.join(names[:12])}" if names else first


def _signature(factory: Callable[..., Any]) -> str:
    return str(inspect.signature(factory))


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
