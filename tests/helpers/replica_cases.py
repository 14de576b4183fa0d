"""Samplers on one device and on R logical CPUs: `python replica_cases.py R CASE...`, prints JSON.

A process of its own for each R: devices are split before anything is computed.
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


def with_norm_and_dropout():
    layers = keras.layers
    return small.classifier(layers.BatchNormalization(), layers.Dropout(0.2))


def with_norm():
    return small.classifier(keras.layers.BatchNormalization())


def all_terms():
    terms = [
        hn.diversity.NegativeEntropy(distance="l2", k=2),
        hn.diversity.NegativeOutputEntropy(),
        small_terms.EnsembleLoss(),
    ]
    return small.hypernetwork(num_networks=8, diversity=terms, prior_scale=1.0)


# Of the cases where several replicas share a network, one has batch norm over all of them. From the
# published start, weights near zero, rounding them alone (6e-8) moves the steps of the target with
# norm by 2.5e-4: its case starts as the model does.
CASES = {
    "hypernetwork": lambda: small.hypernetwork(num_networks=8),
    "every kind of term": all_terms,
    "norm and dropout": lambda: small.hypernetwork(
        with_norm_and_dropout(), num_networks=8, initialization="model"
    ),
    "deep ensemble": small.deep_ensemble,
    "one network": lambda: small.deep_ensemble(with_norm(), num_networks=1),
    "two networks": lambda: small.deep_ensemble(num_networks=2),
    "noise control": small.noise_control,
    "mnf": lambda: small.mnf(num_networks=8),
    "num_chains": lambda: small.chains(num_chains=12),
    "langevin": small.langevin,
}


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        y = np.arange(96) % 3
        yield rng.normal(size=(96, 2)).astype("float32") + y[:, None].astype("float32"), y


def trained(make, strategy):
    """The sampler, the weights before, and the logs of each step."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        sampler = make()
        rate = 1e-4 if isinstance(sampler, hn.SGLD) else RATE
        sampler.compile(
            optimizer=keras.optimizers.SGD(rate), loss=small.LOGITS, metrics=["accuracy"]
        )
        for metric in sampler.metrics:
            if not getattr(metric, "built", True):
                metric.build(tf.zeros([1]), tf.zeros([1, 3]))
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


def apart(one, other):
    """The greatest difference, as a part of the greatest value."""
    scale = max(float(np.abs(a).max()) for a in one)
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)) / scale


def compared(make, strategy):
    one, start, logs = trained(make, tf.distribute.get_strategy())
    several, again, several_logs = trained(make, strategy)
    assert apart(start, again) == 0
    moves = [
        [v.numpy() - s for v, s in zip(sampler.trainable_variables, start, strict=True)]
        for sampler in (one, several)
    ]
    state = [[v.numpy() for v in s.non_trainable_variables] for s in (one, several)]
    numbers = [
        [np.array(list(entry.values())) for entry in entries] for entries in (logs, several_logs)
    ]
    assert max(float(np.abs(move).max()) for move in moves[0]) > 0
    return {
        "gradients": apart(*moves),  # plain SGD: their sum over the steps
        "weights": apart(*([v.numpy() for v in s.trainable_variables] for s in (one, several))),
        "state": apart(*state),
        "metrics": max(apart([a], [b]) for a, b in zip(*numbers, strict=True)),
    }


def resumed(strategy):
    """Three steps on one device and two on several, or the reverse, against five on one.

    With images changed at random, so that it is seen that replicas get the same changes.
    """
    run = functools.partial(training.run, augment=flip_and_crop)
    with tempfile.TemporaryDirectory() as folder:
        several = devices.Execution(strategy, steps_per_execution=3)
        whole, _ = run(pathlib.Path(folder, "whole"), 5)
        found = {}
        for name, first, then in (
            ("weights", devices.Execution(), several),
            ("weights of the reverse", several, devices.Execution()),
        ):
            parts = pathlib.Path(folder, name)
            run(parts, 3, execution=first)
            sampler, record = run(parts, 5, execution=then)
            assert [entry["step"] for entry in record["history"]] == [2, 3, 4, 5]
            variables = ([v.numpy() for v in s.variables] for s in (whole, sampler))
            found[name] = apart(*variables)
        return found


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

    return {"variables": apart(variables(tf.distribute.get_strategy()), variables(strategy))}


# All that there is to compare.
CHECKS = {name: functools.partial(compared, make) for name, make in CASES.items()}
CHECKS |= {"resumed": resumed, "fit": fitted}

if __name__ == "__main__":
    replicas = int(sys.argv[1])
    devices.split_cpu(replicas)
    over = devices.strategy(replicas)
    print(json.dumps({name: CHECKS[name](over) for name in sys.argv[2:]}))
