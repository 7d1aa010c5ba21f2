"""Which unit of one network is which unit of the other: no names, no numbers, only kinds, sizes and wiring.

First both networks are read in one order and aligned like two texts (Needleman and Wunsch), each pair scored by kind,
sizes and surroundings. Then whatever has no partner, or one that doesn't fit its neighbours, is assigned anew by the
neighbours it has (Kuhn and Munkres), until nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from translator.audit.colours import PASSED, Coloured, Palette, coloured, reading_order
from translator.audit.kinds import JOINS
from translator.audit.network import Network, Unit

_WEIGHTED, _JOIN, _POOL, _OTHER, _LIGHT = 8.0, 2.0, 2.0, 1.0, 0.5
_NEVER = -1.0e6
_MOST_REASSIGNED = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """pairs: (PyTorch unit, Keras unit), by PyTorch's order. fits: for each pair, how many of its neighbours are pairs
    of each other, from 0 to 1."""

    pairs: tuple[tuple[int, int], ...]
    fits: tuple[float, ...]


def match(torch: Network, keras: Network) -> Matching:
    """Match two networks. Inputs correspond in their order."""
    palette = Palette()
    left, right = coloured(torch, palette), coloured(keras, palette)
    if not torch.units or not keras.units:
        return Matching(pairs=(), fits=())
    rows, columns = reading_order(torch, left), reading_order(keras, right)
    base = base_scores(torch.units, keras.units)
    scores = base + _context(left, right) * (base > 0)
    scores += _same_shape(torch, keras) * (base > 0)
    partner = dict(align_sequences(rows, columns, scores[np.ix_(rows, columns)]))
    partner = _repaired(partner, torch, keras, left, right, scores)
    partner = _uncrossed(partner, left, right, scores)
    pairs = tuple(sorted(partner.items()))
    agreement = _Agreement(partner, left, right)
    return Matching(pairs=pairs, fits=tuple(agreement.of(t, k) for t, k in pairs))


def base_scores(left: Sequence[Unit], right: Sequence[Unit]) -> np.ndarray:
    """How alike two units are by themselves; below zero where they can't be the same thing at all."""
    classes: dict[tuple[object, ...], int] = {}
    kinds: list[Unit] = []

    def number(unit: Unit) -> int:
        key = (unit.kind, unit.signature, bool(unit.weights), type(unit.facts).__name__)
        if key not in classes:
            classes[key] = len(kinds)
            kinds.append(unit)
        return classes[key]

    rows, columns = [number(u) for u in left], [number(u) for u in right]
    table = np.array([[_alike(a, b) for b in kinds] for a in kinds], dtype=np.float32)
    return np.asarray(table[np.ix_(rows, columns)])


def _alike(a: Unit, b: Unit) -> float:
    if a.kind != b.kind:
        both = {a.kind, b.kind}
        if both <= {"linear", "transposed"}:
            return 1.0
        if both <= {*JOINS, "average", "join"} and "concat" not in both:
            return 1.0 if "join" in both else 0.5
        return _NEVER
    full = _weight_of(a) if bool(a.weights) == bool(b.weights) else _LIGHT
    if a.signature == b.signature:
        return full
    if a.kind == "linear":
        same = sum(1 for x, y in zip(a.signature, b.signature, strict=True) if x == y)
        return full * (0.15 + 0.15 * same)
    if a.kind == "constant":
        return full * 0.5 if a.elements == b.elements else full * 0.1
    return full * 0.4


def _weight_of(unit: Unit) -> float:
    if unit.weights:
        return _WEIGHTED
    if unit.kind in JOINS:
        return _JOIN
    if unit.kind in ("pool", "attend"):
        return _POOL
    return _LIGHT if unit.kind in ("dropout", "pad") else _OTHER


def _context(left: Coloured, right: Coloured) -> np.ndarray:
    """Points for equal surroundings: a little for each round, more where everything above or below is the same."""
    points = np.zeros((len(left.label), len(right.label)), dtype=np.float32)
    for a, b in zip(left.near, right.near, strict=True):
        points += 0.2 * (a[:, None] == b[None, :])
    points += 1.0 * (left.all_above[:, None] == right.all_above[None, :])
    points += 1.0 * (left.all_below[:, None] == right.all_below[None, :])
    return points


def _same_shape(torch: Network, keras: Network) -> np.ndarray:
    palette = Palette()

    def shapes(network: Network) -> np.ndarray:
        found = []
        for unit in network.units:
            shape = network.shapes[unit.outputs[0]] if unit.outputs else ()
            found.append(palette.number(tuple(sorted(n for n in shape[1:] if n is not None and n != 1))))
        return np.array(found, dtype=np.int64)

    a, b = shapes(torch), shapes(keras)
    return np.asarray(0.5 * (a[:, None] == b[None, :]), dtype=np.float32)


def align_sequences(rows: Sequence[int], columns: Sequence[int], scores: np.ndarray) -> list[tuple[int, int]]:
    """The pairs, in order, whose scores add up to most; a unit may stay without a partner at no cost.

    scores: (rows, columns). Computed diagonal by diagonal, so that numpy does the work.
    """
    n, m = scores.shape
    moves = np.zeros((n + 1, m + 1), dtype=np.int8)
    before, last = np.zeros(n + 1, dtype=np.float32), np.zeros(n + 1, dtype=np.float32)
    for diagonal in range(2, n + m + 1):
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        now = np.zeros(n + 1, dtype=np.float32)
        options = np.stack([before[i - 1] + scores[i - 1, j - 1], last[i - 1], last[i]])
        best = np.argmax(options, axis=0)
        now[i] = options[best, np.arange(len(i))]
        moves[i, j] = best
        before, last = last, now
    pairs = []
    i, j = n, m
    while i and j:
        move = moves[i, j]
        if move == 0:
            if scores[i - 1, j - 1] > 0:
                pairs.append((rows[i - 1], columns[j - 1]))
            i, j = i - 1, j - 1
        elif move == 1:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


class _Agreement:
    """How well pairs fit their neighbours under an assignment."""

    def __init__(self, partner: dict[int, int], left: Coloured, right: Coloured) -> None:
        self.partner = partner
        self.left, self.right = left, right

    def of(self, t: int, k: int) -> float:
        """Share of the neighbours of the two units that are partners of each other."""
        above = _shared([self._twin(s) for s in self.left.above[t]], self.right.above[k])
        below = _shared([self._twin(r) for r, _ in self.left.below[t]], [r for r, _ in self.right.below[k]])
        return (above + below) / 2

    def _twin(self, unit: int) -> int | None:
        return unit if unit < 0 else self.partner.get(unit)


def _shared(twins: Sequence[int | None], others: Sequence[int]) -> float:
    if not twins and not others:
        return 1.0
    remaining = list(others)
    found = 0
    for twin in twins:
        if twin is not None and twin in remaining:
            remaining.remove(twin)
            found += 1
    return found / max(len(twins), len(others))


def _repaired(
    partner: dict[int, int],
    torch: Network,
    keras: Network,
    left: Coloured,
    right: Coloured,
    scores: np.ndarray,
) -> dict[int, int]:
    for _ in range(6):
        agreement = _Agreement(partner, left, right)
        loose = [t for t, k in partner.items() if agreement.of(t, k) < 0.5 and torch.units[t].kind not in PASSED]
        taken = set(partner.values())
        rows = sorted({*loose, *(u.index for u in torch.units if u.index not in partner)})
        columns = sorted({*(partner[t] for t in loose), *(u.index for u in keras.units if u.index not in taken)})
        if not rows or not columns or max(len(rows), len(columns)) > _MOST_REASSIGNED:
            return partner
        fixed = {t: k for t, k in partner.items() if t not in set(loose)}
        again = {**fixed, **_assigned(rows, columns, scores, partner, left, right)}
        if again == partner:
            return partner
        partner = again
    return partner


def _uncrossed(partner: dict[int, int], left: Coloured, right: Coloured, scores: np.ndarray) -> dict[int, int]:
    """Layers alike that read the same (key and value projections): each with the one whose surroundings are its own.

    Either way round their neighbours above are each other's partners, so nothing else tells them apart.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for t, k in partner.items():
        groups.setdefault((int(left.label[t]), int(right.label[k]), left.above[t], right.above[k]), []).append(t)
    settled = dict(partner)
    for group in (g for g in groups.values() if len(g) > 1):
        columns = [partner[t] for t in group]
        gain = scores[np.ix_(group, columns)]
        rows, places = linear_sum_assignment(gain, maximize=True)
        if gain[rows, places].sum() > gain.trace():
            settled.update({group[i]: columns[j] for i, j in zip(rows, places, strict=True)})
    return settled


def _assigned(
    rows: Sequence[int],
    columns: Sequence[int],
    scores: np.ndarray,
    partner: dict[int, int],
    left: Coloured,
    right: Coloured,
) -> dict[int, int]:
    agreement = _Agreement(partner, left, right)
    gain = np.zeros((len(rows), len(columns)), dtype=np.float64)
    for i, t in enumerate(rows):
        for j, k in enumerate(columns):
            if scores[t, k] > 0:
                fit = agreement.of(t, k)
                # What was read as a pair stays one unless the neighbours speak against it.
                gain[i, j] = (scores[t, k] * (0.25 + fit) if fit > 0 else 0.0) + (0.1 if partner.get(t) == k else 0.0)
    chosen = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    return {rows[i]: columns[j] for i, j in chosen if gain[i, j] > 0}


def coverage(torch: Network, keras: Network, pairs: Sequence[tuple[int, int]]) -> float:
    """Share of the weights that have a partner, of the side that has more of them (a backbone lacks the head)."""
    shares = []
    for network, matched in ((torch, {t for t, _ in pairs}), (keras, {k for _, k in pairs})):
        total = sum(u.elements for u in network.units)
        shares.append(sum(network.units[i].elements for i in matched) / total if total else 1.0)
    return max(shares)
