"""The systems that make weights, for any target of the experiments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

import hypernet_tf as hn
from reproduce.configs.targets import TARGETS

# What each method is, in the words of `--help`.
METHODS = {
    "hypernetwork": "generated from a random vector",
    "mnf": "multiplicative normalizing flows, a variational posterior",
    "deep_ensemble": "10 networks trained side by side",
    "sgd": "one network, trained in the ordinary way",
    "sgd_chains": "10 independent chains of SGD at a constant rate",
    "sgd_snapshots": "10 snapshots of one such chain",
    "sgld": "10 chains of Langevin dynamics, 10 snapshots of each",
    "noise": "one trained network and noise around it, as far apart as the networks of --match",
}
# In what a hypernetwork's networks are to differ, in the words of `--help`.
DIVERSITY = {
    "weights": "the entropy of the weights, as in the paper's MNIST experiments",
    "outputs": "the entropy of the outputs; --lam is 1e4 if not given",
    "none": "no term; the networks may become one",
}
# Entropy of the outputs is had at the cost of accuracy alone, that of the weights also where
# outputs do not change: at 1e3 LeNet's outputs grow until they run away (docs/results.md).
LAM = {"weights": 1e3, "outputs": 1e4, "none": 1e3}


def build(config: Any, num_data: int, classes: int = 10) -> hn.WeightSampler:
    """A sampler for the configured target, compiled.

    Args:
        config: a `reproduce.runs.experiment.Config`.
        num_data: the number of training images.
        classes: what the target tells apart.
    """
    kind = TARGETS[config.target]
    target = hn.Target(kind.make(kind.image_shape, classes), outputs="logits")
    sampler = _MAKERS[config.method](target, config, num_data)
    rate = config.learning_rate / (num_data if config.method == "sgld" else 1)
    schedule = keras.optimizers.schedules.ExponentialDecay(rate, 1, config.learning_rate_decay)
    if isinstance(sampler, hn.SGDChains) or config.momentum:
        optimizer = keras.optimizers.SGD(schedule, momentum=config.momentum)
    else:
        optimizer = keras.optimizers.Adam(schedule, epsilon=1e-8)
    sampler.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return sampler


def _hypernetwork(target: hn.Target, config: Any, _: int) -> hn.Hypernetwork:
    """The hypernetwork published for the target."""
    terms: dict[str, Any] = {
        "weights": None,  # the default
        "outputs": hn.diversity.NegativeOutputEntropy(),
        "none": [],
    }
    return hn.Hypernetwork(
        target,
        num_networks=config.networks_per_step,
        lam=config.lam,
        seed=config.seed,
        diversity=terms[config.diversity],
        **TARGETS[config.target].hypernetwork,
    )


def _mnf(target: hn.Target, config: Any, num_data: int) -> hn.MNF:
    return hn.MNF(
        target, num_data=num_data, num_networks=config.networks_per_step, seed=config.seed
    )


def _single(config: Any) -> dict[str, Any]:
    return {"initializers": TARGETS[config.target].initializers, "seed": config.seed}


def _deep_ensemble(target: hn.Target, config: Any, _: int) -> hn.DeepEnsemble:
    return hn.DeepEnsemble(target, num_networks=config.networks_per_step, **_single(config))


def _sgd_chains(target: hn.Target, config: Any, _: int) -> hn.SGDChains:
    return hn.SGDChains(target, num_chains=config.networks_per_step, **_single(config))


def _sgd_snapshots(target: hn.Target, config: Any, _: int) -> hn.SGDChains:
    """Its last 10 snapshots lie in the second half of the training."""
    chain = {
        "num_chains": 1,
        "num_snapshots": config.num_networks,
        "snapshot_every": config.snapshot_every,
    }
    return hn.SGDChains(target, **chain, **_single(config))


def _sgld(target: hn.Target, config: Any, num_data: int) -> hn.SGLD:
    return hn.SGLD(
        target,
        lam=num_data,
        num_chains=config.networks_per_step,
        num_snapshots=10,
        snapshot_every=config.snapshot_every,
        **_single(config),
    )


def _noise(target: hn.Target, config: Any, _: int) -> hn.NoiseControl:
    # Next to no noise until the scale is matched: in training the network itself is validated.
    return hn.NoiseControl(target, scale=1e-6, **_single(config))


_MAKERS: dict[str, Callable[[hn.Target, Any, int], hn.WeightSampler]] = {
    "hypernetwork": _hypernetwork,
    "mnf": _mnf,
    "deep_ensemble": _deep_ensemble,
    "sgd": _deep_ensemble,  # of one
    "sgd_chains": _sgd_chains,
    "sgd_snapshots": _sgd_snapshots,
    "sgld": _sgld,
    "noise": _noise,
}
