"""What several commands share: options, and a way to run them that ends every failure in one clear message."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from translator.config import Progress, SourceRequest
from translator.errors import InputError, TranslatorError

if TYPE_CHECKING:
    from rich.console import Console

    from translator.files import Outputs
    from translator.verdict import Report

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)
_PLAIN_WIDTH = 120
_INTERRUPTED = 130
_OUR_BUG = 3


class ShapeType(click.ParamType[tuple[int, ...]]):
    """`2,3,32,32`: the sizes of one input, the batch first."""

    name = "N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse the text; a usage error says what is wrong with it."""
        if isinstance(value, tuple):
            return value
        try:
            shape = tuple(int(part) for part in str(value).strip("()[] ").split(","))
        except ValueError:
            self.fail(f"{value!r} is not a shape: write whole numbers and commas, as in 2,3,32,32", param, ctx)
        if min(shape) < 1:
            self.fail(f"{value!r}: every size, the batch too, is at least 1", param, ctx)
        return shape


_SOURCE_OPTIONS = (
    click.option("--weights", type=FILE, help="Checkpoint of the PyTorch model: .safetensors, .pt, .pth, .ckpt."),
    click.option(
        "--input-shape",
        "input_shapes",
        type=ShapeType(),
        multiple=True,
        help="Shape of an example input, with the batch; once for each input.",
    ),
    click.option(
        "--input-dtype",
        "input_dtypes",
        multiple=True,
        help="Type of the example inputs (default float32): one for all, or one for each.",
    ),
    click.option("--seed", default=0, show_default=True, help="Of random inputs and random initial weights."),
)
_REPORT_OPTIONS = (
    click.option(
        "--report",
        "reports",
        type=FILE,
        multiple=True,
        help="Write the report, too: FILE.json, .html, .md or .xml (JUnit); once for each file.",
    ),
    click.option("--layers", is_flag=True, help="Show every layer in the table, not only the worst."),
    click.option("--force", is_flag=True, help="Replace output files that exist."),
)


def source_options(command: Command) -> Command:
    """Options that describe the PyTorch side; `source_request` makes them one value again."""
    for option in reversed(_SOURCE_OPTIONS):
        command = option(command)
    return command


def report_options(command: Command) -> Command:
    """Options for the report, on the screen and in a file."""
    for option in reversed(_REPORT_OPTIONS):
        command = option(command)
    return command


def runs(command: Callable[..., int]) -> Callable[..., None]:
    """Run a command that returns its exit status; adds --quiet and --debug, and says what failed on stderr.

    0 proven, 1 a check failed, 2 the input can't be used, 3 a bug of ours. No traceback without --debug.
    """

    @click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors; the exit status tells.")
    @click.option("--debug", is_flag=True, help="Show tracebacks and the frameworks' own messages.")
    @functools.wraps(command)
    def run(*args: Any, debug: bool, quiet: bool, **kwargs: Any) -> None:
        from translator import runtime

        runtime.prepare(quiet=not debug)
        try:
            status = command(*args, quiet=quiet, **kwargs)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted: no output was written", err=True)
            status = _INTERRUPTED
        except click.ClickException:
            raise
        except TranslatorError as error:
            status = _say(error, error.exit_status, debug=debug)
        except Exception as error:  # noqa: BLE001 the last stop: what arrives here is a bug of ours, and is said so
            status = _say(error, _OUR_BUG, debug=debug)
        sys.exit(status)

    return run


def _say(error: Exception, status: int, *, debug: bool) -> int:
    import traceback

    if debug:
        click.echo(traceback.format_exc().rstrip(), err=True)
    if isinstance(error, TranslatorError):
        click.echo(f"error: {error}", err=True)
    else:
        click.echo("error: " + "".join(traceback.format_exception_only(error)).strip(), err=True)
    if status == _OUR_BUG:
        click.echo("  This is a bug of translator, not of your model.", err=True)
        hint = "" if debug else "the output of the same command with --debug, "
        click.echo(f"  fix:     report it, please, with {hint}the command and the versions (pip freeze)", err=True)
    return status


def examples(*commands: str) -> str:
    """The epilog of a command's --help; each example on a line of its own."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def source_request(spec: str, options: dict[str, Any]) -> SourceRequest:
    """Take the values of `source_options` out of a command's options."""
    return SourceRequest(spec=spec, **{k: options.pop(k) for k in ("weights", "input_shapes", "input_dtypes", "seed")})


def check_reports(reports: Iterable[Path]) -> None:
    """Refuse a report of a kind that can't be written, before the work begins."""
    from translator.report import form_of

    for path in reports:
        form_of(path)


def check_suffix(output: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse an output whose suffix doesn't say a format that the command writes."""
    if output.suffix not in suffixes:
        raise InputError(f"-o {output}: not a kind of output", fix=f"end it in {' or '.join(suffixes)}")


def console() -> Console:
    """The console for results: stdout, as wide as the terminal."""
    from rich.console import Console

    class ResultConsole(Console):
        def on_broken_pipe(self) -> None:
            _drop_output()  # rich would exit with 1, which means that a check failed

    plain = ResultConsole()
    if plain.is_terminal or "COLUMNS" in os.environ:
        return plain
    return ResultConsole(width=_PLAIN_WIDTH)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Around printing without a console: `| head` reads a few lines and leaves, which is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()


def _drop_output() -> None:
    """Nobody reads on: send the rest of stdout nowhere, so that the command ends with its own status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """A line on stderr that tells the stage, on a terminal only.

    It writes to a descriptor of its own: stderr itself is held back while TensorFlow is being imported.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console

    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w") as stream,
        Console(file=stream, force_terminal=True).status("starting") as line,
    ):
        yield lambda stage: line.update(stage)


def outputs(paths: Iterable[Path], *, force: bool) -> Outputs:
    """The command's output files; checked before the work begins."""
    from translator.files import Outputs

    return Outputs(list(paths), force=force)


def write_reports(report: Report, paths: Iterable[Path], outputs: Outputs) -> None:
    """Write the report in each form that was asked for, failed proofs too."""
    from translator.report import write_report

    for path in paths:
        write_report(report, outputs.path(path))
        outputs.commit(path)


def keep(output: Path, outputs: Outputs, proof: Report, *, keep_failed: bool, also: Iterable[Path] = ()) -> Report:
    """Put a finished output in place, and what belongs to it, if its proof holds, or if failed ones are wanted too.

    Returns the report with the file's own name: it was judged under its temporary one.
    """
    if proof.exit_status == 0 or keep_failed:
        outputs.commit(output, *also)
    if proof.artifact is None:
        return proof
    return replace(proof, artifact=replace(proof.artifact, path=str(output)))


def show(report: Report, *, layers: bool, quiet: bool) -> int:
    """Show the report, and return the exit status that follows from it."""
    if not quiet:
        from translator.report.text import render

        render(report, console(), layers=layers)
    return report.exit_status


def wrong_way(output: Path, spec: str) -> InputError:
    """The error of a transfer whose output is of the framework that the weights come from."""
    kind = "a Keras model" if output.suffix in (".keras", ".h5") else "PyTorch tensors"
    fix = "for Keras to PyTorch end the output in .safetensors or .pt; for PyTorch to Keras in .keras"
    return InputError(f"-o {output}: {kind} can't be made by putting weights into {spec}", fix=fix)
