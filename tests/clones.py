"""A checkout that is set up already, in a path with a space: what a test needs to run the project's own scripts."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def load_script(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def make_clone(folder: Path) -> Path:
    """`folder/a clone`: scripts, models, docs and lock of this checkout; its .venv leads to the Python of the tests."""
    root = folder / "a clone"
    root.mkdir()
    for name in ("scripts", "models", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", "README.md"):
        shutil.copy(ROOT / name, root / name)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    setup = load_script(root / "scripts" / "_setup.py")
    (root / ".venv" / "set-up").write_text(setup.fingerprint(root.resolve()))
    return root
