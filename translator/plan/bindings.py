"""Weight bindings, as the plan's readers import them; they live one level down, where the graph can see them too."""

from translator.bindings import Flip, Permute, Piece, Region, Reshape, Step, WeightBinding, to_keras, to_torch

__all__ = ["Flip", "Permute", "Piece", "Region", "Reshape", "Step", "WeightBinding", "to_keras", "to_torch"]
