"""Which first weights let a hypernetwork train a deep target.

Trains hypernetworks that differ only in their start and prints the accuracy loss, the accuracy of
the networks on a training batch, and the mean square of each layer's first weights.

    python -m benchmarks.initial_weights --target lenet --steps 400 --rates 1e-3
"""

import argparse
import dataclasses

import keras
import numpy as np
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.training.stream import batches
from reproduce.configs import TARGETS, build_sampler, preset
from reproduce.studies.experiment import load


def main():
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet")
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--starts", nargs="+", default=["published", "model"])
    parser.add_argument("--gauges", type=float, nargs="+", default=[1e-16])
    parser.add_argument(
        "--whole", type=int, nargs="*", help="layers generated at once; default: the target's"
    )
    parser.add_argument("--lam", type=float, default=1e3)
    arguments = parser.parse_args()
    config = preset("cifar", "hypernetwork", "paper", target=arguments.target)
    config = dataclasses.replace(config, dataset=arguments.dataset, lam=arguments.lam)
    dataset = load(config, None)
    kind = TARGETS[arguments.target]
    published = kind.hypernetwork | (
        {} if arguments.whole is None else {"whole_layers": tuple(arguments.whole)}
    )
    for start in arguments.starts:
        for gauge in arguments.gauges:
            for rate in arguments.rates:
                settings = published | {"initialization": start, "gauge_epsilon": gauge}
                TARGETS[arguments.target] = dataclasses.replace(kind, hypernetwork=settings)
                keras.utils.set_random_seed(0)
                sampler = build_sampler(
                    dataclasses.replace(config, learning_rate=rate), len(dataset.train)
                )
                print(
                    f"{arguments.target}, whole {published['whole_layers']}, start {start}",
                    end=", ",
                )
                print(f"epsilon {gauge:g}, rate {rate:g}")
                _first_weights(sampler)
                _train(sampler, dataset, config, arguments.steps)


def _first_weights(sampler: hn.Hypernetwork) -> None:
    drawn = sampler.generate(sampler.latent_vectors(tf.constant([0, 0]), 8), training=True)
    kernels = [w for w in drawn.trainable if w.shape.rank > 2]
    scales = [float(np.sqrt(np.mean(kernel.numpy() ** 2))) for kernel in kernels]
    print("  kernels' root mean square:", " ".join(f"{scale:.2g}" for scale in scales))


def _train(sampler, dataset, config, steps: int) -> None:
    size = config.networks_per_step * config.images_per_network
    data = iter(batches(dataset.train, batch_size=size, seed=0, first_step=0))
    step = tf.function(sampler.train_step, autograph=False)
    for done in range(1, steps + 1):
        logs = step(next(data))
        if done in {1, steps // 4, steps // 2, steps}:
            values = {name: float(value) for name, value in logs.items()}
            print(
                f"  step {done}: accuracy loss {values['accuracy_loss']:.4g}, "
                f"accuracy {values['accuracy']:.1%}, diversity loss {values['diversity_loss']:.4g}",
                flush=True,
            )
            sampler.reset_metrics()


if __name__ == "__main__":
    main()
