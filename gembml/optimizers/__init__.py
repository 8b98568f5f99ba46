"""Optax transformations for pytrees of Gaussians."""

from gembml.optimizers.natural_gradient import (
    clip_mean_in_fisher_norm,
    natural_gradient,
    scale_and_clip_log_std,
    scale_by_fisher,
)
from gembml.optimizers.online_em import online_em

__all__ = [
    "clip_mean_in_fisher_norm",
    "natural_gradient",
    "online_em",
    "scale_and_clip_log_std",
    "scale_by_fisher",
]
