"""What can be run: configurations, experiments, methods, targets, and published numbers."""

from reproduce.configs.experiments import EXPERIMENTS, Experiment
from reproduce.configs.methods import METHODS, Method, build_sampler, preset, register_method
from reproduce.configs.run_config import RunConfig
from reproduce.configs.targets import TARGETS, TargetOption, register_target

__all__ = [
    "EXPERIMENTS",
    "METHODS",
    "TARGETS",
    "Experiment",
    "Method",
    "RunConfig",
    "TargetOption",
    "build_sampler",
    "preset",
    "register_method",
    "register_target",
]
