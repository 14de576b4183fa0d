"""The systems that make weights for the MNIST target, each with the numbers of its publication."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

import hypernet_tf as hn

# What each method is, in the words of `--help`.
METHODS = {
    "hypernetwork": "generated from a random vector",
    "mnf": "multiplicative normalizing flows, a variational posterior",
    "deep_ensemble": "10 networks trained side by side",
    "sgd": "one network, trained in the ordinary way",
    "sgd_chains": "10 independent chains of SGD at a constant rate",
    "sgld": "10 chains of Langevin dynamics, 10 snapshots of each",
    "noise": "one trained network and noise around it, as far apart as the networks of --match",
}
# Of methods without a balance of accuracy and diversity.
_PLAIN = {"lam": 1.0, "learning_rate": 1e-3}
_QUICK = {"validate_every": 200, "checkpoint_every": 100}

# (method, preset) -> what differs from the defaults of `Config`, which are the hypernetwork's.
PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("hypernetwork", "paper"): {},
    ("hypernetwork", "quick"): _QUICK | {"steps": 600, "networks": 50, "learning_rate": 1e-3},
    # 100 epochs of 550 batches of 100 images, a network for each, at a constant rate.
    ("mnf", "paper"): _PLAIN
    | {
        "steps": 55_000,
        "networks_per_step": 1,
        "images_per_network": 100,
        "learning_rate_decay": 1.0,
        "validate_every": 5_500,
        "checkpoint_every": 1_000,
    },
    # Ensemble and chains are not in the paper's MNIST experiments: their numbers are our choice.
    ("deep_ensemble", "paper"): _PLAIN
    | {
        "steps": 10_000,
        "networks": 10,
        "networks_per_step": 10,
        "images_per_network": 100,
        "learning_rate_decay": 0.9999,
    },
    # How long the single network was trained is not published: 10,000 steps, after which its
    # learning rate has fallen to 37 %, are our choice.
    ("sgd", "paper"): _PLAIN
    | {
        "steps": 10_000,
        "networks": 1,
        "networks_per_step": 1,
        "images_per_network": 256,
        "learning_rate_decay": 0.9999,
    },
    ("sgd_chains", "paper"): _PLAIN
    | {
        "steps": 20_000,
        "networks": 10,
        "networks_per_step": 10,
        "learning_rate": 0.1,
        "learning_rate_decay": 1.0,
    },
}
PRESETS["noise", "paper"] = PRESETS["sgd", "paper"] | {"networks": 200}
# Of Langevin dynamics the rate is that of the mean loss: their own is this over |data|.
PRESETS["sgld", "paper"] = PRESETS["sgd_chains", "paper"] | {"networks": 100}
for _method, _steps, _networks in (
    ("mnf", 6_000, 50),
    ("deep_ensemble", 600, 10),
    ("sgd", 600, 1),
    ("sgd_chains", 1_800, 10),
    ("sgld", 1_800, 50),
    ("noise", 600, 50),
):
    PRESETS[_method, "quick"] = (
        PRESETS[_method, "paper"] | _QUICK | {"steps": _steps, "networks": _networks}
    )
PRESETS["mnf", "quick"] |= {"validate_every": 2_000, "checkpoint_every": 500}
PRESETS["noise", "quick"] |= {"validate_every": 2_000, "checkpoint_every": 500}
PRESETS["sgd", "quick"] |= {"checkpoint_every": 200}
for _method in ("sgd_chains", "sgld"):
    PRESETS[_method, "quick"] |= {"validate_every": 600, "checkpoint_every": 300}


def build(config: Any, data_size: int) -> hn.WeightSampler:
    """A sampler for the MNIST target, compiled.

    Args:
        config: a `reproduce.mnist.Config`.
        data_size: the number of training images.
    """
    target = hn.Target(hn.zoo.mnist(), outputs="logits")
    sampler = _MAKERS[config.method](target, config, data_size)
    rate = config.learning_rate / (data_size if config.method == "sgld" else 1)
    schedule = keras.optimizers.schedules.ExponentialDecay(rate, 1, config.learning_rate_decay)
    chains = isinstance(sampler, hn.SGDChains)
    sampler.compile(
        optimizer=(
            keras.optimizers.SGD(schedule)
            if chains
            else keras.optimizers.Adam(schedule, epsilon=1e-8)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return sampler


def _hypernetwork(target: hn.Target, config: Any, _: int) -> hn.Hypernetwork:
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


def _mnf(target: hn.Target, config: Any, data_size: int) -> hn.MNF:
    return hn.MNF(target, data_size=data_size, networks=config.networks_per_step, seed=config.seed)


def _initializers() -> dict[str, Any]:
    """Those of the single network that the paper compares with."""
    return {
        "kernel": keras.initializers.TruncatedNormal(stddev=0.1),
        "bias": keras.initializers.Constant(0.1),
    }


def _deep_ensemble(target: hn.Target, config: Any, _: int) -> hn.DeepEnsemble:
    return hn.DeepEnsemble(
        target,
        networks=config.networks_per_step,
        initializers=_initializers(),
        seed=config.seed,
    )


def _sgd_chains(target: hn.Target, config: Any, _: int) -> hn.SGDChains:
    return hn.SGDChains(
        target, chains=config.networks_per_step, initializers=_initializers(), seed=config.seed
    )


def _sgld(target: hn.Target, config: Any, data_size: int) -> hn.SGLD:
    return hn.SGLD(
        target,
        lam=data_size,
        chains=config.networks_per_step,
        snapshots=10,
        every=100,
        initializers=_initializers(),
        seed=config.seed,
    )


def _noise(target: hn.Target, config: Any, _: int) -> hn.NoiseControl:
    # Next to no noise until the scale is matched: in training the network itself is validated.
    return hn.NoiseControl(target, scale=1e-6, initializers=_initializers(), seed=config.seed)


_MAKERS: dict[str, Callable[[hn.Target, Any, int], hn.WeightSampler]] = {
    "hypernetwork": _hypernetwork,
    "mnf": _mnf,
    "deep_ensemble": _deep_ensemble,
    "sgd": _deep_ensemble,  # of one
    "sgd_chains": _sgd_chains,
    "sgld": _sgld,
    "noise": _noise,
}
