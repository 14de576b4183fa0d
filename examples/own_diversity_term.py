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


def noisy_sine(num_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points x [M, 1] between -2 and 2, and y [M, 1] = sin 2x with noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2.0, 2.0, (num_examples, 1))
    y = np.sin(2 * x) + 0.05 * rng.normal(size=x.shape)
    return x.astype("float32"), y.astype("float32")


def main(steps: int = 500) -> None:
    """Train a hypernetwork without and with the term; print how its networks differ."""
    x, y = noisy_sine(256, seed=0)
    x_test, y_test = noisy_sine(256, seed=1)
    print("                  deviation over networks of       mean squared error of")
    print("term              weights    predictions           a network    their mean")
    terms = {"none": [], "log variance": NegativeLogVariance(weight=10.0)}
    for name, term in terms.items():
        keras.utils.set_random_seed(0)
        layers = keras.layers
        model = keras.Sequential(
            [keras.Input((1,)), layers.Dense(32, activation="tanh"), layers.Dense(1)]
        )
        sampler = hn.Hypernetwork(
            hn.Target(model),
            num_networks=16,
            lam=100.0,
            diversity=term,
            initialization="model",
            seed=0,
        )
        sampler.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
        data = tf.data.Dataset.from_tensors((x, y)).repeat(steps)  # each step has all examples
        sampler.fit(data, shuffle=False, verbose=0)
        ensemble = sampler.sample(50)
        result = ensemble.evaluate(x_test, y_test)
        print(
            f"{name:12s}{ensemble.theta().std(0).mean():13.3f}{result.standard_deviation:15.3f}"
            f"{result.member_mean_squared_error.mean():20.4f}{result.mean_squared_error:14.4f}"
        )


if __name__ == "__main__":
    main()
