"""Which parameters have to be in the Keras model as a whole, so that checkpoints fit and the books close.

Those that a network reads only in part (a table of positions that is longer than the text), and those of which two
readings share numbers (the whole and a part of it, a matrix alone and joined to another). What cuts and joins them
stays in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from translator.bindings import Piece, Region
from translator.graph.view import Graph


def kept_whole(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Names of the tensors that can't be cut or joined before the model runs. shapes: of every tensor, by name."""
    read: dict[str, list[Region | None]] = {}
    for piece in _pieces(graph):
        read.setdefault(piece.tensor, []).append(piece.region)
    return frozenset(
        name
        for name, regions in read.items()
        if not _covered(set(regions), shapes[name]) or any(_overlap(a, b) for a, b in combinations(regions, 2))
    )


def _pieces(graph: Graph) -> Iterator[Piece]:
    """What nodes read of parameters: once for all that is made of the same pieces, joined the same way."""
    read = {*(value for node in graph.nodes for value in node.inputs), *graph.outputs}
    found = (graph.derived[value] for value in read if value in graph.derived)
    joined = {(d.pieces, d.join, d.axis) if len(d.pieces) > 1 else (d.pieces,) for d in found}
    return (piece for pieces, *_ in joined for piece in pieces)


def _overlap(a: Region | None, b: Region | None) -> bool:
    """Whether two regions of one tensor share numbers."""
    return a is None or b is None or all(x[0] < y[1] and y[0] < x[1] for x, y in zip(a, b, strict=True))


def _covered(regions: set[Region | None], shape: tuple[int, ...]) -> bool:
    if None in regions:
        return True
    known = [region for region in regions if region is not None]
    if sum(math.prod(stop - start for start, stop in region) for region in known) < math.prod(shape):
        return False
    seen = np.zeros(shape, dtype=bool)
    for region in known:
        seen[tuple(slice(start, stop) for start, stop in region)] = True
    return bool(seen.all())
