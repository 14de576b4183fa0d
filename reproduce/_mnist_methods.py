"""The systems that make weights for the MNIST target, each with the numbers of its publication."""

from __future__ import annotations

from typing import Any

import keras

import hypernet_tf as hn

# (method, preset) -> what differs from the defaults of `Config`, which are the hypernetwork's.
PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("hypernetwork", "paper"): {},
    ("hypernetwork", "quick"): {
        "steps": 600,
        "networks": 50,
        "learning_rate": 1e-3,
        "validate_every": 200,
        "checkpoint_every": 100,
    },
    # How long the single network was trained is not published: 10,000 steps, after which its
    # learning rate has fallen to 37 %, are our choice.
    ("sgd", "paper"): {
        "steps": 10_000,
        "networks": 1,
        "networks_per_step": 1,
        "images_per_network": 256,
        "learning_rate": 1e-3,
        "learning_rate_decay": 0.9999,
    },
}
PRESETS["sgd", "quick"] = PRESETS["sgd", "paper"] | {
    "steps": 600,
    "validate_every": 200,
    "checkpoint_every": 100,
}
METHODS = tuple(dict.fromkeys(method for method, _ in PRESETS))


def build(config: Any) -> hn.WeightSampler:
    """A sampler for the MNIST target, compiled.

    Args:
        config: a `reproduce.mnist.Config`.
    """
    target = hn.Target(hn.zoo.mnist(), outputs="logits")
    sampler = {"hypernetwork": _hypernetwork, "sgd": _sgd}[config.method](target, config)
    sampler.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.ExponentialDecay(
                config.learning_rate, 1, config.learning_rate_decay
            ),
            epsilon=1e-8,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return sampler


def _hypernetwork(target: hn.Target, config: Any) -> hn.Hypernetwork:
    """The published hypernetwork: 633,640 trainable parameters."""
    return hn.Hypernetwork(
        target,
        latent_dim=300,
        code_dim=15,
        extractor_hidden=(300, 300),
        generator_hidden=[(40, 40), (100, 100), (100, 100), (60, 60)],
        networks=config.networks_per_step,
        lam=config.lam,
        seed=config.seed,
    )


def _sgd(target: hn.Target, config: Any) -> hn.DeepEnsemble:
    """The single network that the paper compares with."""
    return hn.DeepEnsemble(
        target,
        networks=config.networks_per_step,
        initializers={
            "kernel": keras.initializers.TruncatedNormal(stddev=0.1),
            "bias": keras.initializers.Constant(0.1),
        },
        seed=config.seed,
    )
