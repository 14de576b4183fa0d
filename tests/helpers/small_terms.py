"""A diversity term that reads everything in the record of a step."""

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
