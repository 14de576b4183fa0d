"""Samplers: Keras models that turn random numbers into the weights of networks."""

from hypernet_tf.samplers import weight_measures  # noqa: F401  (adds to the table of measures)
