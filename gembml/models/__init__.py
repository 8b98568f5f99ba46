"""Flax networks."""

from gembml.models.cnn import CNN
from gembml.models.mlp import MLP, local_reparameterization

__all__ = ["CNN", "MLP", "local_reparameterization"]
