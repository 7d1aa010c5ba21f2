"""Make .venv hold exactly what requirements.lock says, and the project itself: once, and only when something changed.

Needs the standard library and pip alone. Everything is said on stderr; stdout belongs to the command that follows.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class SetupError(Exception):
    """Set-up can't go on; the message says what to do."""


def fingerprint(root: Path) -> str:
    """What .venv depends on: the lock, the project's metadata, this script, and where the checkout stands."""
    digest = hashlib.sha256(str(root).encode())
    for path in (root / "requirements.lock", root / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_ready(root: Path) -> bool:
    """Whether .venv was set up, to its end, from what stands here now."""
    stamp = root / ".venv" / "set-up"
    return stamp.is_file() and stamp.read_text() == fingerprint(root) and python_of(root).exists()


def python_of(root: Path) -> Path:
    return root / ".venv" / "bin" / "python"


def locked(lock: str, package: str) -> str:
    """The lines of one package in the lock: its version and its hashes."""
    found = re.search(rf"^{re.escape(package)}==.*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    if not found:
        raise SetupError(f"requirements.lock has no {package}\n  fix: git checkout requirements.lock")
    return found.group()


@contextmanager
def only_one(root: Path) -> Iterator[int]:
    """Hold the set-up's lock; its descriptor goes to child processes, so that it outlives a killed parent."""
    with (root / "requirements.lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another start is setting up .venv; waiting for it …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def has_module(name: str) -> bool:
    """Whether this Python can import it."""
    return importlib.util.find_spec(name) is not None


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(what: str, command: list[str | Path], lock: int) -> None:
    """Run one step, its output on stderr. Raises SetupError."""
    status = subprocess.run(
        list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, pass_fds=[lock], check=False
    ).returncode
    if status:
        raise SetupError(f"set-up failed: {what} (exit status {status}, its message stands above)")


def make_venv(root: Path) -> None:
    """An empty .venv. Python's own pip isn't copied into it: Debian's Python can't, and uv does the work."""
    if not has_module("venv"):
        raise SetupError("this Python has no venv module\n  fix: install it (Debian: apt-get install python3-venv)")
    import venv

    say(f"Setting up {root / '.venv'} from requirements.lock: some minutes and 8 GB, this once.")
    venv.create(root / ".venv", with_pip=False, symlinks=True)
    (root / ".venv" / "begun").touch()


def install_uv(root: Path, lock: int) -> None:
    """The locked uv, hashes checked, by this Python's pip or, where it has none, by ensurepip's."""
    if has_module("pip"):
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python_of(root)]
    elif has_module("ensurepip"):
        run("ensurepip", [python_of(root), "-m", "ensurepip"], lock)
        pip = [python_of(root), "-m", "pip"]
    else:
        raise SetupError("this Python has no pip\n  fix: install it (Debian: apt-get install python3-pip)")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "uv.txt"
        wanted.write_text(locked((root / "requirements.lock").read_text(), "uv"))
        run("pip install uv", [*pip, "install", "--quiet", "--no-deps", "--require-hashes", "-r", wanted], lock)


def follow_pip() -> None:
    """uv doesn't read pip's configuration: pass on the index and the certificates that pip was told to use."""
    if not has_module("pip"):
        return
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for option, wanted in (("index-url", "UV_DEFAULT_INDEX"), ("cert", "SSL_CERT_FILE")):
        found = re.findall(rf"^(?:global|:env:)\.{option}='(.*)'$", lines, re.MULTILINE)
        if found:
            os.environ.setdefault(wanted, found[-1])


def set_up(root: Path, lock: int) -> None:
    """Bring .venv up to date. The stamp goes first and comes last; one that was left half-made is made anew."""
    home = root / ".venv"
    (home / "set-up").unlink(missing_ok=True)
    if (home / "begun").exists() or (home.exists() and not python_of(root).exists()):
        shutil.rmtree(home)
    if not home.exists():
        make_venv(root)
    say("Installing the packages of requirements.lock …")
    (home / "begun").touch()
    install_uv(root, lock)
    follow_pip()
    os.environ.setdefault("UV_HTTP_TIMEOUT", "300")
    uv: list[str | Path] = [python_of(root), "-m", "uv", "pip"]
    here: list[str | Path] = ["--quiet", "--python", python_of(root)]
    run("uv pip sync", [*uv, "sync", *here, "--require-hashes", root / "requirements.lock"], lock)
    run("uv pip install", [*uv, "install", *here, "--no-deps", "--no-build-isolation", "--editable", root], lock)
    (home / "begun").unlink()
    part = home / "set-up.part"
    part.write_text(fingerprint(root))
    part.replace(home / "set-up")


def main(arguments: list[str]) -> int:
    if arguments == ["--is-ready"]:
        return 0 if is_ready(ROOT) else 1
    try:
        if not is_ready(ROOT):
            with only_one(ROOT) as lock:
                if not is_ready(ROOT):
                    set_up(ROOT, lock)
    except SetupError as error:
        say(str(error))
        return 2
    except OSError as error:
        say(f"set-up failed: {error}")
        return 2
    except KeyboardInterrupt:
        say("set-up interrupted; the next start begins it anew")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
