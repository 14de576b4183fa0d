"""Samplers on one device and on R logical CPUs: `python replica_cases.py R CASE...`, prints JSON.

Each R needs its own process: devices are split before anything is computed.
"""

import functools
import json
import pathlib
import sys
import tempfile

import keras
import numpy as np
import small_samplers as small
import small_terms
import small_training_runs as training
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.training import devices
from hypernet_tf.training.augmentation import flip_and_crop

STEPS, RATE = 2, 1e-2
# Of steps whose gradients are compared: at RATE the first one moves generators so far that the
# gradients of the second differ by 5e-4 for the rounding of the first.
SMALL_RATE = 1e-3


def with_norm_and_dropout():
    layers = keras.layers
    return small.classifier(layers.BatchNormalization(gamma_regularizer="l2"), layers.Dropout(0.2))


def with_norm():
    return small.classifier(keras.layers.BatchNormalization(gamma_regularizer="l2"))


def all_terms():
    terms = [
        hn.diversity.NegativeEntropy(distance="l2", k=2),
        hn.diversity.NegativeOutputEntropy(),
        small_terms.EnsembleLoss(),
        small.discriminator("sgd"),
    ]
    return small.hypernetwork(num_networks=8, diversity=terms, prior_scale=1.0)


def hypergan(model=None):
    return small.hypergan(model, num_networks=8, diversity=small.discriminator("sgd"))


def trained_terms():
    """Two terms with variables of their own, and shared inputs, in a sampler that has neither."""
    terms = [small.discriminator("sgd"), small_terms.Referee(optimizer="sgd", weight=0.1)]
    return small.hypernetwork(num_networks=8, diversity=terms, shared_inputs=True)


# Of the cases in which replicas share a network, one has batch norm over all of them.
CASES = {
    "hypernetwork": lambda: small.hypernetwork(num_networks=8),
    "every kind of term": all_terms,
    "norm and dropout": lambda: small.hypernetwork(with_norm_and_dropout(), num_networks=8),
    "hypergan": hypergan,
    "hypergan, norm and dropout": lambda: hypergan(with_norm_and_dropout()),
    "terms with variables": trained_terms,
    "deep ensemble": small.deep_ensemble,
    "shared inputs": lambda: small.deep_ensemble(shared_inputs=True),
    "one network": lambda: small.deep_ensemble(with_norm(), num_networks=1),
    "two networks": lambda: small.deep_ensemble(num_networks=2),
    "mixture": lambda: small.mixture(num_networks=8),
    "noise control": small.noise_control,
    "mnf": lambda: small.mnf(num_networks=8),
    "flow of norms": lambda: small.bhn(num_networks=8),
    "distillation": lambda: small.apd(num_networks=8),
    "masks": lambda: small.mc_dropout(with_norm_and_dropout(), num_networks=8),
    "chains": lambda: small.chains(num_chains=12),
    "langevin": small.langevin,
}


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        y = rng.integers(0, 3, 96)  # other labels for each network
        yield rng.normal(size=(96, 2)).astype("float32") + y[:, None].astype("float32"), y


def trained(make, strategy):
    """The sampler, its weights before training, and the logs of each step."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        sampler = make()
        rate = 1e-4 if isinstance(sampler, hn.SGLD) else SMALL_RATE
        sampler.compile(
            optimizer=keras.optimizers.SGD(rate), loss=small.LOGITS, metrics=["accuracy"]
        )
        sampler.build_metrics(np.zeros(1))
    before = [v.numpy() for v in sampler.trainable_variables]
    parts, logs = strategy.num_replicas_in_sync, []
    for whole in batches():

        def part(context, whole=whole):
            number = context.replica_id_in_sync_group
            return tuple(tf.constant(np.split(a, parts)[number]) for a in whole)

        data = strategy.experimental_distribute_values_from_function(part)
        strategy.run(lambda x, y, sampler=sampler: sampler.train_step((x, y)), args=data)
        logs.append({k: float(v) for k, v in sampler.get_metrics_result().items()})
        sampler.reset_metrics()
    return sampler, before, logs


def difference(one, other):
    """The greatest difference, relative to the greatest value."""
    scale = max(float(np.abs(a).max()) for a in one)
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)) / scale


def compared(make, strategy):
    one, start, logs = trained(make, tf.distribute.get_strategy())
    mirrored, again, mirrored_logs = trained(make, strategy)
    assert difference(start, again) == 0
    moves = [
        [v.numpy() - s for v, s in zip(sampler.trainable_variables, start, strict=True)]
        for sampler in (one, mirrored)
    ]
    state = [[v.numpy() for v in s.non_trainable_variables] for s in (one, mirrored)]
    numbers = [
        [np.array(list(entry.values())) for entry in entries] for entries in (logs, mirrored_logs)
    ]
    assert max(float(np.abs(move).max()) for move in moves[0]) > 0
    return {
        "gradients": difference(*moves),  # plain SGD: their sum over the steps
        "weights": difference(
            *([v.numpy() for v in s.trainable_variables] for s in (one, mirrored))
        ),
        "state": difference(*state),
        "metrics": max(difference([a], [b]) for a, b in zip(*numbers, strict=True)),
    }


def resumed(strategy, make=training.make):
    """Three steps on one device and two on several, or the reverse, against five on one.

    Images are changed at random, so that replicas have to make the same changes.
    """
    run = functools.partial(training.run, augment=flip_and_crop, make=make)
    with tempfile.TemporaryDirectory() as folder:
        mirrored = devices.Execution(strategy, steps_per_execution=3)
        whole, _ = run(pathlib.Path(folder, "whole"), 5)
        differences = {}
        for name, first, then in (
            ("weights", devices.Execution(), mirrored),
            ("weights of the reverse", mirrored, devices.Execution()),
        ):
            parts = pathlib.Path(folder, name)
            run(parts, 3, execution=first)
            sampler, record = run(parts, 5, execution=then)
            assert [entry["step"] for entry in record["history"]] == [2, 3, 4, 5]
            variables = ([v.numpy() for v in training.all_variables(s)] for s in (whole, sampler))
            differences[name] = difference(*variables)
        return differences


def fitted(strategy):
    """Keras's own `fit`, which shares the batches out itself."""

    def variables(over):
        keras.utils.set_random_seed(0)
        with over.scope():
            sampler = small.hypernetwork(num_networks=8)
            sampler.compile(optimizer=keras.optimizers.SGD(RATE), loss=small.LOGITS)
        x, y = (np.concatenate(parts) for parts in zip(*batches(), strict=True))
        history = sampler.fit(x, y, batch_size=96, epochs=2, shuffle=False, verbose=0).history
        assert len(history["accuracy_loss"]) == 2
        assert int(sampler.step.numpy()) == 2 * STEPS
        return [v.numpy() for v in sampler.variables]

    one, mirrored = (variables(over) for over in (tf.distribute.get_strategy(), strategy))
    return {"variables": difference(one, mirrored)}


def last_batches(strategy):
    """Epochs whose last batch does not divide by N, or is so small that replicas have none."""
    networks = 8

    def variables(over, rest, batch=96):
        keras.utils.set_random_seed(0)
        with over.scope():
            sampler = small.deep_ensemble(num_networks=networks)
            sampler.compile(optimizer=keras.optimizers.SGD(RATE), loss=small.LOGITS)
        x, y = (np.concatenate(parts)[: batch + rest] for parts in zip(*batches(), strict=True))
        history = sampler.fit(x, y, batch_size=batch, epochs=2, shuffle=False, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        return [v.numpy() for v in sampler.variables]

    def reported(over):
        keras.utils.set_random_seed(0)
        with over.scope():
            sampler = small.hypernetwork(num_networks=networks)
            sampler.compile(optimizer=keras.optimizers.SGD(RATE), loss=small.LOGITS)
        x, y = (part[: 4 * networks - 1] for part in next(batches()))
        history = sampler.fit(x, y, batch_size=2 * networks, shuffle=False, verbose=0).history
        return [np.array(history[name]) for name in ("accuracy_loss", "loss")]

    every = [variables(over, 0, 100) for over in (tf.distribute.get_strategy(), strategy)]
    said = [reported(over) for over in (tf.distribute.get_strategy(), strategy)]
    return {"batches of 100": difference(*every), "losses": difference(*said)} | {
        f"{rest} examples": difference(
            *(variables(over, rest) for over in (tf.distribute.get_strategy(), strategy))
        )
        for rest in (1, networks - 1, networks, networks + 1, 2 * networks - 1)
    }


def evaluated(strategy):
    """Validation and `evaluate`, of a target with batch norm; of one network over all replicas."""

    def results(over, make):
        keras.utils.set_random_seed(0)
        with over.scope():
            sampler = make()
            sampler.compile(keras.optimizers.SGD(RATE), small.LOGITS, metrics=["accuracy"])
        x, y = (np.concatenate(parts) for parts in zip(*batches(), strict=True))
        data = {"batch_size": 96, "verbose": 0}
        history = sampler.fit(x, y, validation_data=(x, y), shuffle=False, **data).history
        logs = sampler.evaluate(x, y, return_dict=True, **data)
        assert {f"val_{name}": [value] for name, value in logs.items()}.items() <= history.items()
        assert set(logs) >= {"loss", "member_accuracy", "ensemble_loss"}
        return logs

    differences = {}
    for name, make in (("hypernetwork", CASES["norm and dropout"]), ("one", CASES["one network"])):
        one, mirrored = (results(over, make) for over in (tf.distribute.get_strategy(), strategy))
        assert one.keys() == mirrored.keys()
        differences[name] = max(difference([one[key]], [mirrored[key]]) for key in one)
    return differences


# Everything that is compared.
CHECKS = {name: functools.partial(compared, make) for name, make in CASES.items()}
CHECKS |= {
    "resumed": resumed,
    "hypergan resumed": functools.partial(resumed, make=training.make_hypergan),
    "fit": fitted,
    "last batches": last_batches,
    "evaluated": evaluated,
}

if __name__ == "__main__":
    replicas = int(sys.argv[1])
    devices.split_cpu(replicas)
    over = devices.strategy(replicas)
    print(json.dumps({name: CHECKS[name](over) for name in sys.argv[2:]}))
