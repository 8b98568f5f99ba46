"""Reinforcement learning: environments, episodes, advantages, and policy gradients as a problem."""

from gembml.rl.baselines import BASELINES
from gembml.rl.environment import Environment, Transition
from gembml.rl.problem import Experience, policy_gradient
from gembml.rl.rollouts import Policy, Rollouts, roll_out
from gembml.rl.surrogates import SURROGATES

__all__ = [
    "BASELINES",
    "SURROGATES",
    "Environment",
    "Experience",
    "Policy",
    "Rollouts",
    "Transition",
    "policy_gradient",
    "roll_out",
]
