"""Which parameters a network reads only in part: a table of positions that is longer than the text.

Such a tensor has to be in the Keras model as a whole, so that checkpoints fit and the books close; what cuts it stays
in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from translator.bindings import Region
from translator.graph.view import Graph


def partly_read(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Names of the tensors of which regions are read, but not every number. shapes: of every tensor, by name."""
    read: dict[str, set[Region | None]] = {}
    for value in {*(value for node in graph.nodes for value in node.inputs), *graph.outputs}:
        for piece in graph.derived[value].pieces if value in graph.derived else ():
            read.setdefault(piece.tensor, set()).add(piece.region)
    return frozenset(name for name, regions in read.items() if not _covered(regions, shapes[name]))


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
