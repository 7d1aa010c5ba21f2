"""Output files that appear whole or not at all.

Every output is written to a temporary file in its own folder and put in place by `os.replace`, which a kill can't cut
in two: at any moment the old file stands there, or the new one, or none.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from translator.errors import InputError

_LEAST_FREE = 1 << 20
_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EFBIG: "the file would be too large for the file system",
    errno.EIO: "the device reports an input/output error",
}


class Outputs:
    """Files that one command writes: checked before the work begins, each put in place by `commit`.

    Use as a context manager. What wasn't committed when the block ends is removed.
    Raises InputError at once where a path can't become an output: it exists (without `force`), two are one and the
    same, the folder is missing, read-only or full.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]], *, force: bool = False) -> None:
        finals = [Path(path) for path in paths]
        self._temporary: dict[Path, Path] = {}
        self._modes: dict[Path, int] = {}
        for final in finals:
            if final in self._temporary:
                raise InputError(f"{final}: named twice as an output", fix="give each output a name of its own")
            self._modes[final] = _check(final, force=force)
            self._temporary[final] = _temporary_name(final)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for temporary in self._temporary.values():
            temporary.unlink(missing_ok=True)
        if isinstance(error, (OSError, RuntimeError)) and (reason := self._failure(error)):
            names = ", ".join(str(path) for path in self._temporary)
            raise InputError(f"{names}: can't be written: {reason}", fix=_FIX_FOLDER) from error

    def _failure(self, error: OSError | RuntimeError) -> str:
        """Why one of our files could not be written; "" where the error is about something else."""
        name = getattr(error, "filename", None)
        if name is not None and Path(os.fsdecode(name)) not in self._temporary.values():
            return ""
        return _write_failure(error)

    def path(self, final: str | os.PathLike[str]) -> Path:
        """Where to write what shall become `final`: in the same folder, with the same suffix."""
        return self._temporary[Path(final)]

    def commit(self, *finals: str | os.PathLike[str]) -> None:
        """Put finished files in place, each whole, in the order given. None named: all that were written."""
        chosen = [Path(final) for final in finals] or [f for f, t in self._temporary.items() if t.exists()]
        for final in chosen:
            self._temporary[final].chmod(self._modes[final])
            _sync(self._temporary[final])
        for final in chosen:
            self._temporary[final].replace(final)
            del self._temporary[final]
        for folder in {final.parent for final in chosen}:
            _sync(folder)


@contextmanager
def atomic(path: str | os.PathLike[str], *, force: bool = True) -> Iterator[Path]:
    """Yield the path to write to; at the end of the block the file is put in place, if the block didn't raise."""
    with Outputs([path], force=force) as outputs:
        yield outputs.path(path)
        outputs.commit(path)


_FIX_FOLDER = "choose another folder, or make room in this one"
_WEIGHTS = ".weights.h5"


def _check(final: Path, *, force: bool) -> int:
    """Refuse what can't become an output. Returns the permissions that the file shall have: the old one's, or usual."""
    folder = final.parent
    if final.is_dir():
        raise InputError(f"{final}: is a folder, not a file", fix="give the output a file name")
    if not folder.is_dir():
        raise InputError(f"{final}: the folder {folder} does not exist", fix=f"mkdir -p {folder}")
    if final.exists() and not force:
        raise InputError(f"{final}: exists already", fix="give another name, or --force to replace it")
    _remove_stale(final)
    probe = _temporary_name(final)
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        reason = _write_failure(error) or error.strerror or str(error)
        raise InputError(f"{final}: the folder {folder} can't be written to: {reason}", fix=_FIX_FOLDER) from error
    mode = (final if final.exists() else probe).stat().st_mode
    probe.unlink()
    if shutil.disk_usage(folder).free < _LEAST_FREE:
        raise InputError(f"{final}: the folder {folder} is full", fix=_FIX_FOLDER)
    return stat.S_IMODE(mode)


def _temporary_name(final: Path) -> Path:
    return final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp{_suffix(final)}")


def _suffix(final: Path) -> str:
    """The end of a name that says what the file is; Keras wants both parts of `.weights.h5`."""
    return _WEIGHTS if final.name.endswith(_WEIGHTS) else final.suffix


def _remove_stale(final: Path) -> None:
    """Remove what a killed run left behind for this output: temporary files whose process is gone."""
    pattern = re.compile(re.escape(f".{final.name}.") + r"(\d+)-[0-9a-f]{8}\.tmp" + re.escape(_suffix(final)))
    for entry in os.scandir(final.parent):
        found = pattern.fullmatch(entry.name)
        if found and not _is_alive(int(found.group(1))):
            Path(entry.path).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    """Have the disk hold it before the name points to it: a power cut must not leave an empty file either."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_failure(error: OSError | RuntimeError) -> str:
    """Why a write failed, in words; "" where the error isn't about writing. HDF5 tells its errno only in its text."""
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"errno = (\d+)", str(error))):
        number = int(found.group(1))
    return _REASONS.get(number or 0, "")
