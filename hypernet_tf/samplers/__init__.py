"""Samplers: Keras models that turn random numbers into the weights of networks."""
