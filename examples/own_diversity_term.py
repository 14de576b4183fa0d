"""Write a diversity term of your own, from the variance of the weights over networks.

  python examples/own_diversity_term.py

A term is a class with one method. It gets the record of a training step: the weights `theta` [N, D]
of the step's N networks and, if it sets `uses_outputs = True`, their `outputs` [N, B, ...] on the
same B inputs and the labels `y` [B]. Its value is added to the loss, so it must decrease as the
networks become more diverse. Other ideas, each one line of TensorFlow:

  ensemble loss           loss(y, mean_n softmax(outputs_n))
  texture synthesis       -mean_n |outputs_n - outputs_(n-1)|, https://arxiv.org/abs/1703.01664
  feature visualisation   mean over pairs of the cosine of G_n and G_m, where
                          G_n = outputs_n^T outputs_n, https://distill.pub/2017/feature-visualization
"""

import keras
import numpy as np
import tensorflow as tf

import hypernet_tf as hn


@keras.saving.register_keras_serializable(package="examples")
class NegativeLogVariance(hn.diversity.DiversityTerm):
    """-1/(2D) sum_j log Var_n theta_nj: minus the mean log of the weights' standard deviations.

    Up to a constant it is minus the entropy per weight if weights are independent and normal. The
    variance without the logarithm would reward weights that grow for ever.
    """

    def value(self, step: hn.diversity.StepRecord) -> tf.Tensor:
        """Minus the mean log of the standard deviations."""
        variance = tf.math.reduce_variance(step.theta, 0)  # [D]
        return -tf.reduce_mean(tf.math.log(variance + 1e-8)) / 2


def spirals(num_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [M, 2] on two spirals, and the spiral [M] of each."""
    rng = np.random.default_rng(seed)
    y = np.arange(num_examples) % 2
    angle = rng.uniform(0.5, 5.0, num_examples)
    x = angle[:, None] * np.stack([np.cos(angle + np.pi * y), np.sin(angle + np.pi * y)], 1) / 3
    return (x + 0.1 * rng.normal(size=x.shape)).astype("float32"), y


def main(epochs: int = 150) -> None:
    """Train with more and more weight on the term; print what the networks gain and lose."""
    keras.utils.set_random_seed(0)
    x, y = spirals(512, seed=0)
    x_test, y_test = spirals(1_000, seed=1)
    print("weight   std of the weights   disagreement   accuracy: member   vote")
    for weight in (0.0, 1.0, 3.0):
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((2,)),
                layers.Dense(16, activation="relu"),
                layers.Dense(16, activation="relu"),
                layers.Dense(2),
            ]
        )
        sampler = hn.Hypernetwork(
            hn.Target(model, outputs="logits"),
            num_networks=8,
            lam=10.0,
            diversity=NegativeLogVariance(weight=weight),
            initialization="model",
            seed=0,
        )
        sampler.compile(
            optimizer=keras.optimizers.Adam(3e-3),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        sampler.fit(x, y, batch_size=512, epochs=epochs, verbose=0)
        ensemble = sampler.sample(50)
        result = ensemble.evaluate(x_test, y_test)
        print(
            f"{weight:6.1f}{ensemble.theta().std(0).mean():21.3f}{result.disagreement:15.1%}"
            f"{result.member_accuracy.mean():19.1%}{result.majority_vote_accuracy:7.1%}"
        )


if __name__ == "__main__":
    main()
