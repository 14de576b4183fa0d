"""Diversity terms: one that reads everything in the record of a step, one with variables."""

import keras
import tensorflow as tf

import hypernet_tf as hn


class EnsembleLoss(hn.diversity.DiversityTerm):
    """The loss of the mean prediction: it needs outputs and labels."""

    uses_outputs = True

    def value(self, step):
        mean = tf.reduce_mean(tf.nn.softmax(step.outputs), 0)
        losses = keras.losses.sparse_categorical_crossentropy(step.y, mean)
        return tf.reduce_mean(losses)


@keras.saving.register_keras_serializable(package="tests")
class Referee(hn.diversity.TrainedTerm):
    """Fits a line to the norms of outputs, given theta; the term is minus its squared error.

    It has nothing in common with a discriminator: it reads weights, outputs and random numbers, has
    a single layer, and its loss is not that of a classifier.
    """

    uses_outputs = True

    def __init__(self, *, noise=0.1, **kwargs):
        super().__init__(**kwargs)
        self.noise = noise
        self.line = keras.layers.Dense(1)
        self.error_tracker = keras.metrics.Mean(name="referee_error")

    def build(self, step):
        self.line.build(step.theta.shape)

    def _errors(self, step, theta):
        norms = tf.reduce_mean(tf.square(step.outputs), range(1, step.outputs.shape.rank))
        return tf.square(self.line(theta)[:, 0] - norms)

    def own_loss(self, step):
        noise = tf.random.stateless_normal(tf.shape(step.theta), step.seed)
        loss = tf.reduce_mean(self._errors(step, step.theta + self.noise * noise))
        self.error_tracker.update_state(loss)
        return loss

    def value(self, step):
        return -tf.reduce_mean(self._errors(step, step.theta))

    def get_config(self):
        return super().get_config() | {"noise": self.noise}
