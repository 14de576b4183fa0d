"""Variational posteriors of one layer's weights: normal, and normal times a flow's vector."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.mnf.flows import Coupling, flow

MOST_LOG_SIGMA = math.log(0.5)


class Posterior(keras.layers.Layer, abc.ABC):
    """q(W | z) q(z) of a layer's variables W: W_i ~ N(mean_i(z), sigma_i²), independent given z.

    It turns standard normals into weights: the first ones, u, become z, the others
    W_i = mean_i(z) + sigma_i · noise. With an auxiliary posterior r(z | W) of z,

        KL = KL(q(W | z) || prior) + log q(z) - log r(z | W).

    log sigma starts at -9. sigma stays at most 0.5 by projection after each step: cut off in the
    formula, a sigma at the bound would have no gradient and never leave it.

    It is computed in float32 under any global policy, because the KL is a small difference.

    Args:
        shapes: Shapes of the layer's variables.
        prior: Standard deviation of the normal prior on the weights.

    Input: standard normals [N, normals]. Output: one tensor [N, ...] for each variable.

    Attributes:
        auxiliary: n, the length of u and z.
    """

    auxiliary: int = 0

    def __init__(self, shapes: Sequence[Sequence[int]], *, prior: float = 1.0, **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.shapes = [tuple(int(size) for size in shape) for shape in shapes]
        self.prior = prior

    @property
    def normals(self) -> int:
        """Number of standard normals of one network."""
        return self.auxiliary + sum(map(math.prod, self.shapes))

    @abc.abstractmethod
    def _initial_means(self) -> list[Any]:
        """Keras initializers of the variables' means."""

    @abc.abstractmethod
    def _auxiliary(self, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The auxiliary vectors z [N, n] of the normals u [N, n], and log q(z) [N]."""

    @abc.abstractmethod
    def _means_given(self, z: tf.Tensor) -> list[tf.Tensor]:
        """The means [N, ...] of the variables, given z [N, n]."""

    @abc.abstractmethod
    def _log_r(self, z: tf.Tensor, weights: list[tf.Tensor]) -> tf.Tensor:
        """The log density [N] of r(z | W)."""

    def build(self, input_shape=None):
        """Make the variables."""
        self.means, self.log_sigmas = [], []
        initial = zip(self.shapes, self._initial_means(), strict=True)
        for index, (shape, initializer) in enumerate(initial):
            mean = self.add_weight(name=f"mean_{index}", shape=shape, initializer=initializer)
            log_sigma = self.add_weight(
                name=f"log_sigma_{index}",
                shape=shape,
                initializer=keras.initializers.Constant(-9.0),
                constraint=_at_most_half,
            )
            self.means.append(mean)
            self.log_sigmas.append(log_sigma)

    def call(self, normals):
        """The weights of N networks."""
        u, *noise = tf.split(normals, [self.auxiliary, *map(math.prod, self.shapes)], axis=-1)
        means = self._means_given(self._auxiliary(u)[0])
        return [
            mean + tf.exp(log_sigma.value) * tf.reshape(part, [-1, *shape])
            for mean, log_sigma, part, shape in zip(
                means, self.log_sigmas, noise, self.shapes, strict=True
            )
        ]

    def kl(self, normals: tf.Tensor, weights: list[tf.Tensor]) -> tf.Tensor:
        """KL(q || prior): the part of W given z in closed form, the rest at this sample.

        Args:
            normals: Standard normals [N, normals].
            weights: Weights that `call` makes of them.

        Returns:
            The estimates [N] of the networks, in nats.
        """
        from tensorflow_probability import distributions as tfd  # takes seconds to load

        z, log_q = self._auxiliary(normals[:, : self.auxiliary])
        total = log_q - self._log_r(z, weights)
        for mean, log_sigma in zip(self._means_given(z), self.log_sigmas, strict=True):
            posterior = tfd.Normal(mean, tf.exp(log_sigma.value))
            each = tfd.kl_divergence(posterior, tfd.Normal(0.0, self.prior))  # [N, ...]
            total += tf.reduce_sum(each, range(1, each.shape.rank))
        return total


def _at_most_half(log_sigma: Any) -> Any:
    return keras.ops.minimum(log_sigma, MOST_LOG_SIGMA)


class GaussianPosterior(Posterior):
    """Independent normal weights, for layers that have no inputs or filters to multiply.

    Args:
        shapes: Shapes of the layer's variables.
        initial: Keras initializers of their means, or names.
        **kwargs: `prior`, see `Posterior`.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], *, initial: Sequence[Any], **kwargs: Any):
        super().__init__(shapes, **kwargs)
        self.initial = [keras.initializers.get(initializer) for initializer in initial]

    def _initial_means(self) -> list[Any]:
        return self.initial

    def _auxiliary(self, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return u, tf.reduce_sum(u, -1)  # there are none: 0

    def _means_given(self, z: tf.Tensor) -> list[tf.Tensor]:
        return [_repeated(mean, z) for mean in self.means]

    def _log_r(self, z: tf.Tensor, weights: list[tf.Tensor]) -> tf.Tensor:
        return tf.reduce_sum(z, -1)


class MultiplicativePosterior(Posterior, abc.ABC):
    """Normal weights whose means are multiplied by a random vector z (Louizos & Welling 2017).

        z0 ~ N(m, v),  z = flow_q(z0),  W_ij ~ N(mu_ij z, sigma_ij²)
        log q(z) = log N(z0; m, v) - log |dz / dz0|

    In r(z | W), flow_r(z) is normal with mean s · b1 and log variance s · b2, where s is the mean
    of a = c · W over outputs (in a convolution, over positions of a filter). Both flows have two
    steps. log q(z) and log r(z | W) are taken at the network's own z and W, without further random
    numbers.

    Args:
        shapes: Shape of the kernel, and of the bias if there is one.
        seed: Two integers that determine the flows' masks.
        **kwargs: `prior`, see `Posterior`.

    Attributes:
        hidden_q: Hidden size of the networks of flow_q.
        hidden_r: Hidden size of the networks of flow_r.
    """

    hidden_q, hidden_r = 50, 100

    def __init__(
        self, shapes: Sequence[Sequence[int]], *, seed: Sequence[int] = (0, 0), **kwargs: Any
    ):
        super().__init__(shapes, **kwargs)
        self.seed = [int(word) for word in seed]
        fold_in = tf.random.experimental.stateless_fold_in
        seeds = [fold_in(tf.constant(self.seed, tf.int64), i).numpy() for i in range(4)]
        self.flow_q = [Coupling(self.hidden_q, seed=seed, dtype="float32") for seed in seeds[:2]]
        self.flow_r = [Coupling(self.hidden_r, seed=seed, dtype="float32") for seed in seeds[2:]]

    @abc.abstractmethod
    def _summary(self, kernel: tf.Tensor) -> tf.Tensor:
        """What r sees of the kernel [N, ...]: a = c · W, [N, outputs] or [N, positions]."""

    def _start(self) -> Any:
        """Normal noise of variance 4 / (fan_in + fan_out).

        Make a new object for each use: an initializer of Keras always gives the same numbers.
        """
        *field, inputs, outputs = self.shapes[0]
        fans = math.prod(field) * (inputs + outputs)
        return keras.initializers.RandomNormal(stddev=2 / math.sqrt(fans))

    def _initial_means(self) -> list[Any]:
        return [self._start(), *["zeros"] * (len(self.shapes) - 1)]

    def build(self, input_shape=None):
        """Make the variables and the flows."""
        super().build(input_shape)
        n = (self.auxiliary,)
        log_variance = keras.initializers.Constant(math.log(0.1))
        self.z_mean = self.add_weight(name="z_mean", shape=n, initializer=self._start())
        self.z_log_variance = self.add_weight(
            name="z_log_variance", shape=n, initializer=log_variance
        )
        self.c = self.add_weight(name="c", shape=n, initializer=self._start())
        self.b1 = self.add_weight(name="b1", shape=n, initializer=self._start())
        self.b2 = self.add_weight(name="b2", shape=n, initializer=self._start())
        for step in self.flow_q + self.flow_r:
            step.build((None, *n))

    def _auxiliary(self, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        from tensorflow_probability import distributions as tfd  # takes seconds to load

        deviation = tf.exp(0.5 * self.z_log_variance.value)
        z0 = self.z_mean.value + deviation * u
        bijector = flow(self.flow_q)
        log_q0 = tfd.MultivariateNormalDiag(self.z_mean.value, deviation).log_prob(z0)
        return bijector.forward(z0), log_q0 - bijector.forward_log_det_jacobian(z0)

    def _log_r(self, z: tf.Tensor, weights: list[tf.Tensor]) -> tf.Tensor:
        from tensorflow_probability import distributions as tfd  # takes seconds to load

        s = tf.reduce_mean(self._summary(weights[0]), -1, keepdims=True)  # [N, 1]
        end = tfd.MultivariateNormalDiag(s * self.b1.value, tf.exp(0.5 * s * self.b2.value))
        bijector = flow(self.flow_r)
        return end.log_prob(bijector.forward(z)) + bijector.forward_log_det_jacobian(z)


class DensePosterior(MultiplicativePosterior):
    """A dense layer, kernel [inputs, outputs]: z multiplies its rows.

    a = tanh(c · W) for each output.
    """

    @property
    def auxiliary(self) -> int:  # type: ignore[override]
        """Number of inputs."""
        return self.shapes[0][0]

    def _means_given(self, z: tf.Tensor) -> list[tf.Tensor]:
        kernel, *bias = self.means
        return [kernel.value * z[..., None], *(_repeated(mean, z) for mean in bias)]

    def _summary(self, kernel: tf.Tensor) -> tf.Tensor:
        return tf.tanh(tf.linalg.matvec(kernel, self.c.value, transpose_a=True))


class ConvolutionPosterior(MultiplicativePosterior):
    """A convolution, kernel [..., input channels, filters]: z multiplies filters and biases.

    a = c · W for each position of a filter.
    """

    @property
    def auxiliary(self) -> int:  # type: ignore[override]
        """Number of filters."""
        return self.shapes[0][-1]

    def _means_given(self, z: tf.Tensor) -> list[tf.Tensor]:
        return [
            mean.value * tf.reshape(z, [-1, *[1] * (len(shape) - 1), self.auxiliary])
            for mean, shape in zip(self.means, self.shapes, strict=True)
        ]

    def _summary(self, kernel: tf.Tensor) -> tf.Tensor:
        positions = math.prod(self.shapes[0][:-1])
        return tf.linalg.matvec(tf.reshape(kernel, [-1, positions, self.auxiliary]), self.c.value)


def _repeated(mean: Any, z: tf.Tensor) -> tf.Tensor:
    """The same mean for each network: [N, ...]."""
    return tf.broadcast_to(mean.value, [z.shape[0] or tf.shape(z)[0], *mean.shape])
