"""Partners that read something else than each other's partners: exchanged branches, another order of a concat."""

from __future__ import annotations

from collections.abc import Iterator

from translator.audit.align import Alignment, Pair
from translator.audit.colours import see_through
from translator.audit.kinds import ORDERED
from translator.audit.unmatched import layer_name
from translator.verdict import Difference, Effect

_FLAT = frozenset({"concat", "add"})


def wiring_differences(alignment: Alignment) -> Iterator[Difference]:
    """A difference for each pair whose sources all have partners, and yet not the ones the other side reads."""
    left = see_through(alignment.left, alignment.left.wiring())
    right = see_through(alignment.right, alignment.right.wiring())
    partner = {p.torch.index: p.keras.index for p in alignment.pairs}
    ours = [u.kind for u in alignment.left.units]
    theirs = [u.kind for u in alignment.right.units]
    for pair in alignment.pairs:  # a join whose partner is another kind of layer is read as a whole on both sides
        if pair.torch.kind != pair.keras.kind:
            ours[pair.torch.index] = theirs[pair.keras.index] = ""
    for pair in alignment.pairs:
        flat_left = _flattened(left, pair.torch.index, ours)
        flat_right = _flattened(right, pair.keras.index, theirs)
        want = [partner.get(s) if s >= 0 else s for s in flat_left]
        if None in want or not set(flat_right) <= {*partner.values(), *(s for s in flat_right if s < 0)}:
            continue
        got = list(flat_right)
        if sorted(got) == sorted(w for w in want if w is not None):
            if pair.torch.kind in ORDERED and got != want:
                yield _difference(pair, alignment, "order of arguments", flat_right, flat_left)
            continue
        yield _difference(pair, alignment, "wiring", flat_right, flat_left)


def _flattened(rows: tuple[tuple[int, ...], ...], unit: int, kinds: list[str]) -> list[int]:
    """What a unit reads; for a join of joins of its kind, what those read: cat(cat(a, b), c) is cat(a, b, c)."""
    kind = kinds[unit]
    found: list[int] = []
    stack = list(reversed(rows[unit]))
    while stack:
        source = stack.pop()
        if source >= 0 and kind in _FLAT and kinds[source] == kind:
            stack.extend(reversed(rows[source]))
        else:
            found.append(source)
    return found


def _difference(
    pair: Pair, alignment: Alignment, kind: str, got: list[int], want: list[int]
) -> Difference:  # fmt: skip
    def names(sources: list[int], network: object) -> str:
        units = getattr(network, "units", ())
        return ", ".join("the input" if s < 0 else layer_name(units[s]) for s in sources)

    return Difference(
        kind=kind,
        layers=(layer_name(pair.torch),),
        torch=names(want, alignment.left),
        keras=names(got, alignment.right),
        effect=Effect.INFERENCE,
        fix=f"{pair.keras.path}: read what PyTorch's {layer_name(pair.torch)} reads, in its order",
    )
