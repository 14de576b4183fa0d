"""HyperGAN: noise -> mixer -> a code for each layer -> weights."""
