"""The house stands: the lock is whole, set-up runs once, the same checks run everywhere, and imports stay light."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def load_setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_setup", ROOT / "scripts" / "_setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/_setup.py on a checkout of its own, in a path with a space; its commands are recorded, not run."""
    module = load_setup()
    root = tmp_path / "a clone"
    root.mkdir()
    (root / "requirements.lock").write_text("uv==1.2.3 \\\n    --hash=sha256:00\nnumpy==1.0 \\\n    --hash=sha256:11\n")
    (root / "pyproject.toml").write_text("[project]\n")
    module.commands = []

    def record(what: str, command: list[object], lock: int) -> None:
        module.commands.append(what)

    def make(root: Path) -> None:
        module.commands.append("venv")
        module.python_of(root).parent.mkdir(parents=True)
        module.python_of(root).touch()

    monkeypatch.setattr(module, "ROOT", root)
    module.make_real_venv = module.make_venv
    monkeypatch.setattr(module, "run", record)
    monkeypatch.setattr(module, "make_venv", make)
    monkeypatch.setattr(module, "follow_pip", lambda: None)
    monkeypatch.setattr(module, "has_module", lambda name: True)
    return module


WHOLE = ["venv", "pip install uv", "uv pip sync", "uv pip install"]


def test_a_second_start_runs_no_set_up(setup: ModuleType) -> None:
    assert setup.main([]) == 0
    assert setup.commands == WHOLE
    assert setup.main([]) == 0
    assert setup.main(["--is-ready"]) == 0
    assert setup.commands == WHOLE


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed_without_a_new_venv(setup: ModuleType, name: str) -> None:
    setup.main([])
    setup.commands.clear()
    path = setup.ROOT / name
    path.write_text(path.read_text() + "\n# changed\n")
    assert setup.main(["--is-ready"]) == 1
    assert setup.main([]) == 0
    assert setup.commands == WHOLE[1:]


@pytest.mark.parametrize("step", WHOLE[1:])
def test_a_set_up_that_was_cut_off_begins_anew(
    setup: ModuleType, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut_off(what: str, command: list[object], lock: int) -> None:
        if what == step:
            raise setup.SetupError(f"set-up failed: {what}")

    with monkeypatch.context() as patch:
        patch.setattr(setup, "run", cut_off)
        assert setup.main([]) == 2
    assert f"set-up failed: {step}" in capsys.readouterr().err
    assert setup.main(["--is-ready"]) == 1
    setup.commands.clear()
    assert setup.main([]) == 0
    assert setup.commands == WHOLE


def test_a_checkout_that_moved_is_set_up_again(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.main([])
    moved = setup.ROOT.rename(setup.ROOT.with_name("elsewhere"))
    monkeypatch.setattr(setup, "ROOT", moved)
    assert setup.main(["--is-ready"]) == 1


def test_concurrent_starts_set_up_once(setup: ModuleType) -> None:
    starts = [threading.Thread(target=setup.main, args=([],)) for _ in range(4)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert setup.commands == WHOLE


def test_uv_is_installed_with_its_locked_hashes(setup: ModuleType) -> None:
    lock = (setup.ROOT / "requirements.lock").read_text()
    assert setup.locked(lock, "uv") == "uv==1.2.3 \\\n    --hash=sha256:00\n"
    with pytest.raises(setup.SetupError, match=r"requirements\.lock has no pip"):
        setup.locked(lock, "pip")


@pytest.mark.parametrize(("missing", "says"), [("venv", "has no venv module"), ("pip", "has no pip")])
def test_a_python_without_its_tools_is_told_what_to_install(
    setup: ModuleType, missing: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if missing == "venv":
        monkeypatch.setattr(setup, "make_venv", setup.make_real_venv)
    monkeypatch.setattr(setup, "has_module", lambda name: name not in {missing, "ensurepip"})
    assert setup.main([]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("script", ["translate", "test"])
def test_a_python_that_is_too_old_is_named(tmp_path: Path, script: str) -> None:
    scripts, path = tmp_path / "a clone" / "scripts", tmp_path / "bin"
    scripts.mkdir(parents=True)
    path.mkdir()
    for name in (script, "_env.sh", "_setup.py"):
        (scripts / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    for name in ("python", "python3", "python3.11", "python3.12", "python3.13"):
        (path / name).write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit\nexit 1\n')
        (path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", scripts / script], env={"PATH": f"{path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "Python 3.9.1" in done.stderr
    assert "fix:" in done.stderr


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked_versions() -> dict[str, str]:
    """The pin of each package on this Python and this machine; markers leave out what is for others."""
    pins = {}
    for line in re.findall(r"^[A-Za-z0-9].*", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        pin = Requirement(line.rstrip("\\ "))
        if pin.marker is None or pin.marker.evaluate():
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    return pins


def test_the_lock_holds_what_the_project_asks_for() -> None:
    asked = [*project()["dependencies"], *(r for extra in project()["optional-dependencies"].values() for r in extra)]
    pins = locked_versions()
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_each_package_of_the_lock_has_hashes_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(blocks) >= len(locked_versions()) > 100
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in lock
    assert "index-url" not in lock


def test_what_runs_is_what_the_lock_says() -> None:
    from importlib.metadata import version

    pins = locked_versions()
    for name in ("torch", "tensorflow", "keras", "onnx", "onnx2keras", "numpy", "pytest"):
        assert version(name) == pins[name]


def test_each_entry_has_its_run_bit_and_ci_runs_the_test_command() -> None:
    for path in ("scripts/translate", "scripts/test", "scripts/lock", ".ci/run"):
        assert (ROOT / path).stat().st_mode & 0o111, path
    assert "exec scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_pre_commit_runs_the_checks_of_scripts_test() -> None:
    checks = re.findall(r'^check "([a-z-]+)"', (ROOT / "scripts" / "test").read_text(), re.MULTILINE)
    hooks = re.findall(r"- id: (\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert checks == hooks == ["ruff-check", "ruff-format", "mypy", "lint-imports", "pytest"]


def test_importing_translator_loads_no_framework() -> None:
    code = "import sys, translator; print(sorted({'torch', 'tensorflow', 'keras', 'onnx', 'jax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_torch_and_triton_come_before_tensorflow_in_this_process() -> None:
    assert "torch" in sys.modules
    order = list(sys.modules)
    if "triton" in sys.modules and "tensorflow" in sys.modules:
        assert order.index("triton._C.libtriton") < order.index("tensorflow")


def test_random_numbers_belong_to_the_test(seed: int) -> None:
    import torch

    got = torch.rand(3)
    torch.manual_seed(seed)
    assert torch.equal(got, torch.rand(3))


def unordered(node: ast.AST) -> bool:
    """Whether an expression is a set, whose order differs from one process to the next."""
    if isinstance(node, ast.BinOp):
        return unordered(node.left) or unordered(node.right)
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"set", "frozenset"}
    return called or isinstance(node, ast.Set | ast.SetComp)


def test_tests_are_collected_in_the_same_order_in_every_process() -> None:
    """Two processes that collect in different orders can't share the tests between them."""
    found = [
        f"{path.relative_to(ROOT)}, line {node.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "parametrize"
        if any(unordered(argument) for argument in node.args)
    ]
    assert found == []
    assert unordered(ast.parse('set(EXAMPLES) - {"empty"}', mode="eval").body)
