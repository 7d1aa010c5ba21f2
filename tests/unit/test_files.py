"""Output files appear whole or not at all, and what can't become an output is refused before the work."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from translator import files
from translator.errors import InputError
from translator.files import Outputs, atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_output_is_in_place_after_its_commit_only(tmp_path: Path) -> None:
    final = tmp_path / "out.keras"
    with Outputs([final]) as outputs:
        assert outputs.path(final).suffix == ".keras"
        assert outputs.path(final).parent == tmp_path
        outputs.path(final).write_text("new")
        assert not final.exists()
        outputs.commit(final)
        assert final.read_text() == "new"
    assert names(tmp_path) == ["out.keras"]


def test_what_was_not_committed_is_removed(tmp_path: Path) -> None:
    a, b = tmp_path / "a.keras", tmp_path / "a.json"
    with Outputs([a, b]) as outputs:
        outputs.path(a).write_text("failed its proof")
        outputs.path(b).write_text("report")
        outputs.commit(b)
    assert names(tmp_path) == ["a.json"]


def test_an_error_leaves_the_old_files_and_nothing_else(tmp_path: Path) -> None:
    a, b = tmp_path / "a.keras", tmp_path / "a.json"
    a.write_text("old")

    def fail() -> None:
        with Outputs([a, b], force=True) as outputs:
            outputs.path(a).write_text("new")
            outputs.path(b).write_text("half of")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == ["a.keras"]
    assert a.read_text() == "old"


def test_committing_without_names_puts_all_that_were_written_in_place(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    with Outputs([a, b, c]) as outputs:
        outputs.path(a).write_text("1")
        outputs.path(c).write_text("3")
        outputs.commit()
    assert names(tmp_path) == ["a", "c"]


def test_an_output_has_the_usual_permissions_or_those_of_the_file_it_replaces(tmp_path: Path) -> None:
    final, usual = tmp_path / "a", tmp_path / "usual"
    usual.touch()
    for want in (usual.stat().st_mode, 0o100640):
        if final.exists():
            final.chmod(want)
        with atomic(final) as temporary:
            temporary.touch(mode=0o600)
        assert final.stat().st_mode == want


def test_an_existing_output_is_refused_before_the_work_unless_forced(tmp_path: Path) -> None:
    final = tmp_path / "a.keras"
    final.write_text("old")
    with pytest.raises(InputError, match=r"a\.keras: exists already\n  fix:     .*--force"):
        Outputs([final])
    with atomic(final) as temporary:
        temporary.write_text("new")
    assert final.read_text() == "new"
    assert names(tmp_path) == ["a.keras"]


def test_what_cannot_become_an_output_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a file"):
        Outputs([tmp_path], force=True)
    with pytest.raises(InputError, match=r"the folder .*/absent does not exist\n  fix:     mkdir -p"):
        Outputs([tmp_path / "absent" / "a.keras"])
    with pytest.raises(InputError, match="named twice as an output"):
        Outputs([tmp_path / "a", tmp_path / "a"])
    with pytest.raises(InputError, match=r"/proc can't be written to"):
        Outputs(["/proc/a.keras"])


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that nobody may write to; root, who may write everywhere, is somebody else for the time."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o555)
        try:
            if user == 0:
                os.seteuid(_NOBODY)
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o700)


_NOBODY = 65534


def test_a_read_only_folder_is_refused_before_the_work(read_only: Path) -> None:
    with pytest.raises(InputError, match="can't be written to: permission denied"):
        Outputs([read_only / "a.keras"])


def test_a_full_folder_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(100, 100, 0))
    with pytest.raises(InputError, match="is full"):
        Outputs([tmp_path / "a.keras"])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space is left on the device"),
        (OSError("Can't write data (file write failed: errno = 28, error message = 'x')"), "no space is left"),
        (RuntimeError("Can't decrement id ref count (errno = 28)"), "no space is left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
    ],
)
def test_a_folder_that_fills_up_during_the_work_is_told_as_such(tmp_path: Path, error: Exception, reason: str) -> None:
    def write() -> None:
        with atomic(tmp_path / "a.keras") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(InputError, match=f"a.keras: can't be written: {reason}"):
        write()
    assert names(tmp_path) == []


def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from translator.errors import InputError
from translator.files import atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with atomic({str(tmp_path / "a.keras")!r}) as temporary:
        temporary.write_bytes(bytes(100_000))
except InputError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "a.keras: can't be written: the file would be too large" in run.stdout
    assert names(tmp_path) == []


def test_an_error_about_another_file_stays_what_it_is(tmp_path: Path) -> None:
    def write() -> None:
        with atomic(tmp_path / "a.keras"):
            raise PermissionError(errno.EACCES, "Permission denied", "/some/input")

    with pytest.raises(PermissionError):
        write()


WRITER = """
import sys, time
from translator.files import Outputs
final, side = sys.argv[1:]
with Outputs([final, side], force=True) as outputs:
    print("begun", flush=True)
    for path in (final, side):
        with outputs.path(path).open("wb") as file:
            for _ in range(50):
                file.write(b"new" * 1000)
                file.flush()
                time.sleep(0.0005)
    outputs.commit()
"""


@pytest.mark.parametrize("old", [b"old", None])
def test_a_kill_at_any_moment_leaves_the_old_files_or_whole_new_ones(tmp_path: Path, old: bytes | None) -> None:
    final, side = tmp_path / "a.keras", tmp_path / "a.json"
    whole, seen = b"new" * 50_000, set()
    for i in range(14):
        for path in (final, side):
            path.unlink(missing_ok=True)
            if old is not None:
                path.write_bytes(old)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, final, side], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.012 * i)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for path in (final, side):
            got = path.read_bytes() if path.exists() else None
            assert got in (old, whole)
            seen.add(got)
    assert seen == {old, whole}
    Outputs([final, side], force=True)
    assert [name for name in names(tmp_path) if ".tmp" in name] == [], "what killed runs left is removed"


def test_the_temporary_files_of_a_run_that_is_alive_are_left_alone(tmp_path: Path) -> None:
    final = tmp_path / "a.keras"
    with Outputs([final]) as first, Outputs([final]) as second:
        first.path(final).write_text("first")
        second.path(final).write_text("second")
        assert len(names(tmp_path)) == 2
        first.commit()
        second.commit()
    assert final.read_text() == "second"
