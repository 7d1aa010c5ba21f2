"""Parity in a process of its own: gradients of some models make TensorFlow abort the process it runs in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from translator.config import ParityRequest, Progress, SourceRequest
from translator.errors import InputError, InternalError, TranslatorError, UnsupportedError, Where
from translator.training.parity_report import ParityReport, dumps, from_json


def in_own_process(request: ParityRequest, on_progress: Progress) -> ParityReport:
    """Run the request in a fresh process and bring its report here.

    Raises what it raised; InputError where it was killed by a signal.
    """
    with tempfile.TemporaryDirectory(prefix="translator-") as folder:
        target = Path(folder) / "report.json"
        job = {"request": _plain(request), "target": str(target)}
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with tempfile.TemporaryFile() as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "translator.training.isolated"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
            )
            try:
                _talk(process, job, on_progress)
            finally:
                process.kill()
                process.wait()
            stderr.seek(0)
            words = stderr.read().decode(errors="replace")
        if not target.exists():
            raise _death(process.returncode, words)
        answer = json.loads(target.read_text(encoding="utf-8"))
    if "error" in answer:
        raise _error(answer["error"])
    return from_json(answer)


def _talk(process: subprocess.Popen[str], job: dict[str, Any], on_progress: Progress) -> None:
    if process.stdin is None or process.stdout is None:
        raise InternalError("the process has no pipes")
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    for line in process.stdout:
        if line.startswith("stage "):
            on_progress(line.removeprefix("stage ").strip())
    process.wait()


def _death(status: int, words: str) -> TranslatorError:
    if status < 0:
        name = signal.Signals(-status).name
        return InputError(
            f"the process that trained both models was ended by {name}: a kernel crashed, or memory ran out",
            fix="try another Keras backend: KERAS_BACKEND=jax translator parity …; or a smaller --batch",
        )
    last = words.strip().splitlines()[-8:]
    return InternalError("the process that trained both models failed:\n" + "\n".join(last))


def _plain(request: ParityRequest) -> dict[str, Any]:
    found = asdict(request)
    found["source"]["weights"] = None if request.source.weights is None else str(request.source.weights)
    return found


def _request(found: dict[str, Any]) -> ParityRequest:
    source = found.pop("source")
    return ParityRequest(
        source=SourceRequest(
            spec=source["spec"],
            weights=None if source["weights"] is None else Path(source["weights"]),
            input_shapes=tuple(tuple(shape) for shape in source["input_shapes"]),
            input_dtypes=tuple(source["input_dtypes"]),
            seed=source["seed"],
        ),
        **found,
    )


def _error(found: dict[str, Any]) -> TranslatorError:
    where = Where(**found["where"])
    if found["status"] != InputError.exit_status:
        return InternalError(found["what"], where=where, fix=found["fix"])
    if found["reason"]:
        return UnsupportedError(found["what"], reason=found["reason"], where=where, fix=found["fix"])
    return InputError(found["what"], where=where, fix=found["fix"])


def _main() -> None:
    """The other end: a job on stdin, stages on stdout, the report or the error in a file."""
    job = json.loads(sys.stdin.read())
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what models print must not be taken for a stage

    def on_progress(stage: str) -> None:
        print(f"stage {stage}", file=out, flush=True)

    from translator import runtime

    runtime.prepare(quiet=True)
    on_progress("loading PyTorch and Keras")
    target = Path(job["target"])
    try:
        from translator.training.requested import parity_of

        text = dumps(parity_of(_request(job["request"]), on_progress))
    except TranslatorError as error:
        text = json.dumps(
            {
                "error": {
                    "what": error.what,
                    "fix": error.fix,
                    "where": asdict(error.where),
                    "status": error.exit_status,
                    "reason": getattr(error, "reason", ""),
                }
            }
        )
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _main()
