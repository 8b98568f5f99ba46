"""Flax networks."""

from gembml.models.mlp import MLP

__all__ = ["MLP"]
