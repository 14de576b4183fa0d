"""The training loop of runs: the same on one device, on several, and on several machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.training.devices import Execution


def loop(
    sampler: WeightSampler,
    data: Any,
    labels: Any,
    callbacks: Sequence[keras.callbacks.Callback],
    *,
    steps: int,
    stops: Sequence[int],
    execution: Execution,
) -> None:
    """Train until step `steps`.

    It does what `fit` does. In Keras 3 `fit` fails on several machines, and with several steps per
    execution on several devices. Callbacks see the step of the sampler.

    Args:
        sampler: A compiled sampler, made in the scope of the execution.
        data: Endless batches from the sampler's step on, distributed if the sampler is.
        labels: A few of the labels, to make the variables of the metrics.
        callbacks: Keras callbacks; `on_train_batch_end` is called after each execution.
        steps: The last step.
        stops: An execution ends when the step is a multiple of one of these; there the results are
            those of all replicas together.
        execution: How steps are run.
    """
    strategy = execution.strategy or tf.distribute.get_strategy()
    with execution.scope():
        sampler.build_metrics(labels)
    sampler.build_optimizer()
    step = sampler.train_step
    if execution.jit_compile:
        step = tf.function(step, jit_compile=True, autograph=False)

    @tf.function(autograph=False)
    def execute(iterator: Any, count: tf.Tensor) -> Any:
        def one(done: tf.Tensor) -> tf.Tensor:
            strategy.run(step, args=(next(iterator),))
            return done + 1

        if execution.steps_per_execution == 1:
            one(count)
        else:
            tf.while_loop(lambda done: done < count, one, [0], parallel_iterations=1)
        return strategy.run(sampler.get_metrics_result)

    def stop(step: int) -> bool:
        return step == steps or any(step % every == 0 for every in stops)

    follow = keras.callbacks.CallbackList(list(callbacks), model=sampler)
    done = int(sampler.step.numpy())
    sampler.reset_metrics()  # of an earlier training
    follow.on_train_begin()
    iterator = iter(data)
    while done < steps:
        end = done + 1
        while not stop(end) and end < done + execution.steps_per_execution:
            end += 1
        results = execute(iterator, tf.constant(end - done))
        done = end
        if execution.replicas > 1 and stop(done):
            logs = sampler.get_metrics_result()
        else:
            logs = {k: strategy.experimental_local_results(v)[0] for k, v in results.items()}
        follow.on_train_batch_end(done, {name: float(value) for name, value in logs.items()})
    follow.on_train_end()
