"""HyperGAN: noise -> mixer -> a code for each layer -> weights."""

from hypernet_tf.samplers.hypergan.hypergan import HyperGAN

__all__ = ["HyperGAN"]
