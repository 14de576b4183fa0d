"""Distances between the codes of networks and their prior N(0, I), as terms of the loss.

Codes that follow the prior differ between networks: if the networks became one, so would their
codes (Ratzlaff & Fuxin 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.diversity.terms import DiversityTerm, StepRecord
from hypernet_tf.diversity.trained import TrainedTerm


def moment_error(points: tf.Tensor) -> tf.Tensor:
    """How far mean and covariance of a sample are from those of N(0, I).

        ||mean||² / d + ||covariance - I||² / d        (Frobenius norm)

    It is 1 for points that are all zero, and about (d + 2) / N for N points of N(0, I) itself.

    Args:
        points: Points [..., N, d].

    Returns:
        The errors [...].
    """
    points = tf.convert_to_tensor(points)
    mean, excess = _moments(points)
    size = tf.cast(tf.shape(points)[-1], points.dtype)
    return (tf.reduce_sum(mean**2, -1) + tf.reduce_sum(excess**2, [-2, -1])) / size


def _moments(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean [..., d] and covariance minus I [..., d, d] of points [..., N, d]."""
    mean = tf.reduce_mean(points, -2)
    centred = points - mean[..., None, :]
    count = tf.cast(tf.shape(points)[-2], points.dtype)
    covariance = tf.matmul(centred, centred, transpose_a=True) / (count - 1)
    return mean, covariance - tf.eye(tf.shape(points)[-1], dtype=points.dtype)


@keras.saving.register_keras_serializable(package="hypernet_tf")
class PriorMoments(DiversityTerm):
    """Distance of mean and covariance of the codes from those of the prior: no discriminator.

    For each code of d numbers, an estimate without bias of

        ||mean||² / d + ||covariance - I||² / d        (Frobenius norm)

    from two halves of the networks of a step, (m1 · m2 + <C1 - I, C2 - I>) / d, averaged over
    codes. It may be negative. The `moment_error` of so few networks would be lowest for codes that
    are much closer together than those of the prior.

    Args:
        weight: Factor on the term.
    """

    @property
    def min_networks(self) -> int:
        """4: each half has a covariance."""
        return 4

    def value(self, step: StepRecord) -> tf.Tensor:
        """The mean error, a scalar.

        Raises:
            ValueError: The sampler has no codes, or a step has fewer than four networks.
        """
        half = _codes(step)[0].shape[0] // 2
        if half < 2:
            raise ValueError(
                "Each half of the networks needs a covariance: give the sampler num_networks of at "
                "least 4."
            )
        errors = []
        for code in _codes(step):
            points = tf.transpose(code, [1, 0, 2])  # [F, N, code_dim]
            (mean, excess), (other_mean, other_excess) = (
                _moments(part) for part in (points[:, :half], points[:, half : 2 * half])
            )
            squared = tf.reduce_sum(mean * other_mean, -1)
            squared += tf.reduce_sum(excess * other_excess, [-2, -1])
            errors.append(squared / code.shape[-1])
        return tf.reduce_mean(tf.concat(errors, 0))


@keras.saving.register_keras_serializable(package="hypernet_tf")
class PriorDiscriminator(TrainedTerm):
    """HyperGAN's discriminator, which tells codes from draws of the prior N(0, I).

    It sees one code at a time. Its own loss is the binary cross-entropy of its logits D,

        (mean softplus(-D(prior)) + mean softplus(D(codes))) / 2

    with as many draws of the prior as there are codes: log 2 if it cannot tell them apart. The term
    is the adversarial loss, mean softplus(-D(codes)), which is low where codes pass as draws of the
    prior. `fit` reports `discriminator_loss` and `discriminator_accuracy` (0.5 is chance).

    Args:
        hidden: Sizes of the hidden layers, with ReLU.
        l2: Factor of L2 in the gradient: the loss gets l2 / 2 times the sum of squared variables.
        optimizer: Keras optimizer, or its name; None for Adam with the published rate of 1e-4.
        weight: Factor on the term: beta of the published program.
        name: Name of the layer, and the first word of its metrics.

    Reference: Ratzlaff, Fuxin (2019), "HyperGAN: A Generative Model for Diverse, Performant Neural
    Networks", arXiv 1901.11058.
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (512, 512),
        l2: float = 5e-4,
        optimizer: Any = None,
        weight: float = 1.0,
        name: str = "discriminator",
    ):
        optimizer = keras.optimizers.Adam(1e-4) if optimizer is None else optimizer
        super().__init__(optimizer=optimizer, weight=weight, name=name)
        self.hidden = tuple(hidden)
        self.l2 = l2
        self.dense = [
            *(keras.layers.Dense(size, activation="relu", dtype="float32") for size in self.hidden),
            keras.layers.Dense(1, dtype="float32"),
        ]
        self.loss_tracker = keras.metrics.Mean(name=f"{name}_loss")
        self.accuracy_tracker = keras.metrics.Mean(name=f"{name}_accuracy")

    def build(self, step):
        """Build the dense layers for codes of the sampler's size.

        Raises:
            ValueError: The sampler has no codes, or codes of several sizes.
        """
        shape = (None, _points(step).shape[-1])
        for dense in self.dense:
            dense.build(shape)
            shape = (None, dense.units)

    def logits(self, points: tf.Tensor) -> tf.Tensor:
        """D [M]: above 0 where points [M, code_dim] look like draws of the prior."""
        for dense in self.dense:
            points = dense(points)
        return points[:, 0]

    def own_loss(self, step: StepRecord) -> tf.Tensor:
        """The discriminator's loss, a scalar."""
        codes = _points(step)
        prior = tf.random.stateless_normal(tf.shape(codes), step.seed)
        of_prior, of_codes = tf.split(self.logits(tf.concat([prior, codes], 0)), 2)
        loss = tf.reduce_mean(tf.nn.softplus(-of_prior) + tf.nn.softplus(of_codes)) / 2
        self.loss_tracker.update_state(loss)
        self.accuracy_tracker.update_state(tf.concat([of_prior > 0, of_codes <= 0], 0))
        return loss + half_squares(self.l2, self.trainable_variables)

    def value(self, step: StepRecord) -> tf.Tensor:
        """The adversarial loss, a scalar."""
        return tf.reduce_mean(tf.nn.softplus(-self.logits(_points(step))))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return super().get_config() | {"hidden": list(self.hidden), "l2": self.l2}


def half_squares(factor: float, variables: Sequence[Any]) -> tf.Tensor:
    """`factor` / 2 times the sum of squares, whose gradient is `factor` times the variable."""
    if not factor:
        return tf.zeros([])
    return factor * tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(one)) for one in variables])


def _codes(step: StepRecord) -> list[tf.Tensor]:
    if not step.codes:
        raise ValueError(
            "The sampler makes no codes to compare with a prior: use another diversity term."
        )
    return [tf.cast(code, tf.float32) for code in step.codes]  # half in mixed precision


def _points(step: StepRecord) -> tf.Tensor:
    """All codes of all networks, [M, code_dim]."""
    codes = _codes(step)
    sizes = sorted({int(code.shape[-1]) for code in codes})
    if len(sizes) > 1:
        raise ValueError(
            f"The sampler has codes of several sizes ({', '.join(map(str, sizes))}), but a "
            "discriminator takes one: give all layers the same code_dim."
        )
    return tf.concat([tf.reshape(code, [-1, sizes[0]]) for code in codes], 0)
