"""Flax networks."""

from gembml.models.mlp import MLP, local_reparameterization

__all__ = ["MLP", "local_reparameterization"]
