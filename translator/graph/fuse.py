"""Put together again what the exporter broke up: every fusion, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from translator.graph.fusions.attention import fuse_attention
from translator.graph.fusions.einsums import spell_out_einsums, squeeze_broadcast_letters
from translator.graph.fusions.linear import fuse_linear
from translator.graph.fusions.norms import fuse_batch_statistics, fuse_normalised_weights, keep_reduced_axes
from translator.graph.fusions.ranks import one_rank
from translator.graph.fusions.replacements import drop_idle_replacements, fuse_replacements
from translator.graph.fusions.scopes import lift_shared_views
from translator.graph.fusions.small import (
    drop_expands,
    fuse_channel_shuffle,
    fuse_selects,
    fuse_silu,
    fuse_slices,
    fuse_table_lookup,
)
from translator.graph.fusions.tiles import expand_dynamic_tiles
from translator.graph.fusions.views import fuse_views
from translator.graph.view import Graph, live

Fusion = Callable[[Graph], Graph]

FUSIONS: tuple[Fusion, ...] = (
    lift_shared_views,
    spell_out_einsums,
    squeeze_broadcast_letters,
    expand_dynamic_tiles,
    fuse_replacements,
    drop_idle_replacements,
    fuse_table_lookup,
    drop_expands,
    fuse_selects,
    fuse_batch_statistics,
    fuse_normalised_weights,
    fuse_linear,
    fuse_views,
    keep_reduced_axes,
    fuse_silu,
    fuse_attention,
    fuse_channel_shuffle,
    fuse_slices,
    one_rank,
)


def fuse(graph: Graph) -> Graph:
    """Apply every fusion in order. Each keeps the function and every value that a module hands to another."""
    for fusion in FUSIONS:
        graph = fusion(graph)
    return replace(graph, nodes=live(graph.nodes, graph.outputs))
