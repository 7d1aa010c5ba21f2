"""Random PyTorch networks through convert and proof: every one must be proven, or refused by name.

    scripts/fuzz.py                         200 networks from seed 0
    scripts/fuzz.py --count 5000 --start 0 --output out/fuzz.jsonl
    scripts/fuzz.py --load tensorflow jax torch      each network's file, too, loaded on these backends of Keras
    scripts/fuzz.py --seed 1234             one network, shown; cut down to the steps that fail if it does

Networks have 1 to 5 dimensions, odd sizes, branches, joins, modules used again and every layer with random legal
settings (scripts/fuzzing). Several are translated side by side in one model, which costs far less than one each; where
that model isn't proven, each is asked by itself. A network with a part that is constant whatever comes in (the softmax
over an axis of length 1) can't be judged, nor one that PyTorch refuses (a view behind a part), nor one where PyTorch
reads memory that isn't its own (the median along an expanded axis): they are "unusable".
One that is proven, but whose file is off in a backend's float32 by more than PyTorch's own loses and by less than 1 %,
is "rough": somebody has to look.
Results that are in --output already are not computed again, unless --load asks for more backends. The exit status is 1
if any network is wrong or crashed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scripts.fuzzing.files import Loaders

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
PROVEN, ROUGH, REFUSED, WRONG, CRASHED, UNUSABLE = "proven", "rough", "refused", "wrong", "crashed", "unusable"
CONSTANT = "every reference is constant: agreement proves nothing"
"""What the proof says of a network, or a module, that gives the same numbers whatever comes in."""

_OWN = 1e-2
"""Relative distance between what PyTorch makes of expanded tensors and of copies, which sums in another order have."""


def main(arguments: list[str] | None = None) -> int:
    from scripts.zoo import KERAS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--together", type=int, default=8, help="networks in one model")
    parser.add_argument("--output", default=str(ROOT / "out" / "fuzz.jsonl"))
    parser.add_argument("--seed", type=int, help="one network by its seed")
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--load", nargs="+", choices=KERAS, default=[], help="load each file on these Keras backends")
    options = parser.parse_args(arguments)
    from translator import runtime

    runtime.prepare()
    from scripts.fuzzing.files import Loaders

    with Loaders(options.load) as loaders:
        return many(options, loaders) if options.seed is None else show(options.seed, loaders)


def many(options: argparse.Namespace, loaders: Loaders) -> int:
    """Every seed that has no result yet, in groups."""
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    wanted = range(options.start, options.start + options.count)
    rows = {r["seed"]: r for r in map(json.loads, output.read_text().splitlines())} if output.exists() else {}
    asked_for = set(loaders.backends)
    todo = [seed for seed in wanted if seed not in rows or not asked_for <= set(rows[seed].get("backends", ()))]
    start = time.perf_counter()
    for index in range(0, len(todo), options.together):
        if options.minutes and time.perf_counter() - start > options.minutes * 60:
            break
        for row in group(todo[index : index + options.together], loaders):
            rows[row["seed"]] = row | {"backends": loaders.backends}
            with output.open("a") as file:
                file.write(json.dumps(rows[row["seed"]]) + "\n")
            if row["status"] in (WRONG, CRASHED, ROUGH):
                print(f"{row['status']}: --seed {row['seed']}: {row['message']}", flush=True)
    done = [rows[seed] for seed in wanted if seed in rows]
    counts = Counter(r["status"] for r in done)
    words = ", ".join(f"{n:,} {status}" for status, n in counts.most_common())
    print(f"seeds {wanted.start} to {wanted.stop - 1}: {len(done):,} networks, {words}")
    for message, n in Counter(r["message"].split("\n")[0] for r in done if r["status"] == REFUSED).most_common(30):
        print(f"  refused {n:4d}  {message}")
    return int(any(r["status"] in (WRONG, CRASHED) for r in done))


def group(seeds: Sequence[int], loaders: Loaders) -> Iterator[dict[str, Any]]:
    """The results of some seeds: asked together, and each by itself where that isn't proven."""
    from scripts.fuzzing.networks import recipe

    recipes = [recipe(seed) for seed in seeds]
    status, message = asked(recipes, loaders)
    if status == PROVEN:
        yield from ({"seed": r.seed, "status": PROVEN, "message": ""} for r in recipes)
    elif len(recipes) == 1:
        yield {"seed": recipes[0].seed, "status": status, "message": message, "network": str(recipes[0])}
    else:
        for seed in seeds:
            yield from group([seed], loaders)


def asked(recipes: Sequence[Any], loaders: Loaders) -> tuple[str, str]:
    """What becomes of networks translated side by side, and of their file: (status, message)."""
    import keras

    from scripts.fuzzing.networks import Network, example
    from translator.engines.native import translate
    from translator.errors import InputError
    from translator.verdict import Verdict
    from translator.verify.proof import ProofOptions, Subject, prove

    networks = [Network(r) for r in recipes]
    reasons = [reason for reason in map(unusable, recipes) if reason]
    if reasons:
        return UNUSABLE, reasons[0]
    module = Together(networks).eval() if len(networks) > 1 else networks[0].eval()
    inputs = tuple(example(r) for r in recipes)
    try:
        result = translate(module, inputs)
        subject = Subject(keras_model=result.model, claims=result.claims, load_state=result.load_state)
        report = prove(module, inputs, subject, ProofOptions(dtypes=("float64",)))
        if report.verdict is not Verdict.DIFFERENT:
            found = loaders.found(module, inputs, result, alone=len(networks) == 1)
            return WRONG if found.wrong else ROUGH if found.rough else PROVEN, found.wrong or found.rough
    except InputError as error:
        return REFUSED, str(error)
    except Exception as error:  # noqa: BLE001 - a crash is a result here, and makes the run fail
        return CRASHED, f"{type(error).__name__}: {str(error)[:400]}"
    finally:
        keras.backend.clear_session()
    said = [words for check in report.checks if not check.ok for words in check.detail.split("; ")]
    if said and all(words.endswith(CONSTANT) for words in said):
        return UNUSABLE, f"{report.first_wrong}: {CONSTANT}"
    return WRONG, f"{report.first_wrong}: " + "; ".join(f"{c.name}: {c.detail}" for c in report.checks if not c.ok)[
        :400
    ]


def Together(networks: Sequence[Any]) -> Any:  # noqa: N802 - a module, made late so that torch is imported late
    """Networks side by side, each with an input of its own."""
    from torch import nn

    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.networks = nn.ModuleList(networks)

        def forward(self, *inputs: Any) -> list[Any]:
            return [network(x) for network, x in zip(self.networks, inputs, strict=True)]

    return Side()


def show(seed: int, loaders: Loaders) -> int:
    """One network, and the smallest part of it that fails the same way."""
    from scripts.fuzzing.networks import recipe

    found = recipe(seed)
    status, message = asked([found], loaders)
    print(found)
    print(f"{status}: {message}")
    if status not in (WRONG, CRASHED):
        return 0
    smaller = True
    while smaller:
        smaller = False
        for index in reversed(range(len(found.steps))):
            candidate = found.without(index) if len(found.steps) > 1 else None
            if candidate is not None and asked([candidate], loaders)[0] == status:
                found, smaller = candidate, True
                break
    print("\ncut down:")
    print(found)
    print("{}: {}".format(*asked([found], loaders)))
    return 1


def unusable(candidate: Any) -> str:
    """Why what PyTorch computes of a network can't be judged; "" where it can.

    It must be the same where an expanded tensor has memory of its own at every place, with what isn't finite in place.
    """
    import torch

    from scripts.fuzzing.networks import Network, example
    from translator.verify.compare import distance
    from translator.verify.torch_record import tensors_in

    try:
        with torch.no_grad():
            found, apart = (tensors_in(Network(candidate, apart=a).eval()(example(candidate))) for a in (False, True))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return "PyTorch refuses it"
    same = all(distance(a.numpy(), b.numpy()) <= _OWN for a, b in zip(found, apart, strict=True))
    return "" if same else "PyTorch computes something else of an expanded tensor than of a copy"


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
