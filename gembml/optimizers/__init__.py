"""Optax transformations for pytrees of Gaussians, and trust regions."""

from gembml.optimizers.natural_gradient import (
    cap_log_std_rise,
    clip_log_std,
    clip_mean_in_fisher_norm,
    natural_gradient,
    scale_by_fisher,
    scale_log_std,
)
from gembml.optimizers.online_em import online_em
from gembml.optimizers.trust_region import on_mean, trust_region

__all__ = [
    "cap_log_std_rise",
    "clip_log_std",
    "clip_mean_in_fisher_norm",
    "natural_gradient",
    "on_mean",
    "online_em",
    "scale_by_fisher",
    "scale_log_std",
    "trust_region",
]
