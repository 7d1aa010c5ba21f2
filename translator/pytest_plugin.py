"""Equivalence tests in pytest: a fixture `assert_equivalent`, and a marker `equivalent` for models named as in the CLI.

    def test_port(assert_equivalent):
        assert_equivalent(net, keras_net, torch.randn(1, 3, 32, 32))

    @pytest.mark.equivalent("net.py:Net", "port.keras", weights="net.pt", baseline="gaps.json")
    def test_port(equivalence_report):
        assert equivalence_report.balance.unexplained == 0

A failure shows the first screen of the audit and, in a section of its own, every layer that differs. Nothing heavy is
imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from translator.verdict import Report

MARKER = "equivalent"
_SIGNATURE = "source, keras, weights=None, input_shape=None, input_dtype=None, baseline=None, seed=0"
_REPORT = pytest.StashKey["Report"]()
_SHOWN = 40


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    words = f"{MARKER}({_SIGNATURE}): the two models are the same function, or the test fails with what differs"
    config.addinivalue_line("markers", words)


@pytest.fixture
def assert_equivalent(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """`translator.assert_equivalent`, which also leaves its report with the test: options of the marker apply."""
    node = request.node

    def check(module: Any, keras_model: Any, example_inputs: Any, **options: Any) -> Report:
        from translator.audit.api import audit, first_screen

        options.setdefault("weights", "compare")
        found = audit(module, keras_model, example_inputs, **options)
        _leave(node, found)
        if found.exit_status:
            raise pytest.fail.Exception(first_screen(found), pytrace=False)
        return found

    return check


@pytest.fixture
def equivalence_report(request: pytest.FixtureRequest) -> Report:
    """The report of the audit that the test's marker asked for."""
    found: Report | None = request.node.stash.get(_REPORT, None)
    if found is None:
        raise pytest.UsageError(f"equivalence_report needs @pytest.mark.{MARKER}(source, keras) on the test")
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Run the audit of a marked test before its fixtures, so that they can have the report."""
    marker = item.get_closest_marker(MARKER)
    if marker is not None:
        _leave(item, _audited(item, marker.args, marker.kwargs))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Fail a marked test whose models differ, before its body."""
    found = pyfuncitem.stash.get(_REPORT, None)
    if found is not None and found.exit_status:
        from translator.audit.api import first_screen

        raise pytest.fail.Exception(first_screen(found), pytrace=False)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the layers that differ to a failure."""
    outcome = yield
    found = item.stash.get(_REPORT, None)
    if found is not None and call.when == "call" and outcome.failed:
        outcome.sections.append(("layers that differ", "\n".join(layer_lines(found))))
    return outcome


def layer_lines(report: Report) -> list[str]:
    """A line for each layer that is wrong: both names, the error alone and along the chain, why."""
    wrong = [row for row in report.layers if not row.ok]
    lines = []
    for row in wrong[:_SHOWN]:
        errors = [f"{e:.1e}" if e is not None else "–" for e in (row.error_f64, row.chain_f64)]
        lines.append(f"{row.torch:<40} {row.keras:<40} alone {errors[0]:>8} chain {errors[1]:>8}  {row.note}".rstrip())
    if len(wrong) > _SHOWN:
        lines.append(f"and {len(wrong) - _SHOWN} more")
    return lines or ["none alone: the difference is in how layers are put together, or in training only"]


def _leave(item: pytest.Item, report: Report) -> None:
    item.stash[_REPORT] = report
    item.user_properties.append(("equivalence", report.verdict.value))


def _audited(item: pytest.Item, args: Sequence[Any], options: Mapping[str, Any]) -> Report:
    from translator.audit.api import audit_files
    from translator.config import AuditRequest, SourceRequest
    from translator.errors import TranslatorError

    if len(args) != 2:
        raise pytest.UsageError(f"@pytest.mark.{MARKER}({_SIGNATURE}): name both models")
    unknown = sorted(set(options) - {"weights", "input_shape", "input_dtype", "baseline", "seed"})
    if unknown:
        raise pytest.UsageError(f"@pytest.mark.{MARKER}: no option is called {', '.join(unknown)}")
    shapes = options.get("input_shape") or ()
    shapes = (shapes,) if shapes and isinstance(shapes[0], int) else tuple(shapes)
    dtypes = options.get("input_dtype") or ()
    source = SourceRequest(
        spec=_beside(item, args[0]),
        weights=Path(_beside(item, options["weights"])) if options.get("weights") else None,
        input_shapes=shapes,
        input_dtypes=(dtypes,) if isinstance(dtypes, str) else tuple(dtypes),
        seed=int(options.get("seed", 0)),
    )
    baseline = Path(_beside(item, options["baseline"])) if options.get("baseline") else None
    try:
        return audit_files(AuditRequest(source=source, keras=_beside(item, args[1]), baseline=baseline))
    except TranslatorError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from error


def _beside(item: pytest.Item, spec: Any) -> str:
    """Files are looked for where pytest was started, then beside the test."""
    text = str(spec)
    path, colon, rest = text.partition(":")
    near = item.path.parent / path
    looks_like_file = path.endswith((".py", ".keras", ".h5", ".hdf5", ".pt", ".pth", ".ckpt", ".safetensors", ".json"))
    return f"{near}{colon}{rest}" if looks_like_file and not Path(path).exists() and near.exists() else text
