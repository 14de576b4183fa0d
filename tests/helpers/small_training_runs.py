"""A training run that takes seconds, and a comparison of two runs."""

import keras
import numpy as np

import hypernet_tf as hn
from hypernet_tf.data import Dataset, Split
from hypernet_tf.training.run import train


def digits(count, seed=0):
    """Images 6x6 whose bright row shows their class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 60, [count, 6, 6, 1])
    images[np.arange(count), 2 * labels] += 150
    return Split(images.astype(np.uint8), labels.astype(np.int64))


DATASET = Dataset("digits", "drawn", ("a", "b", "c"), digits(96), digits(30, 1), digits(30, 2))


def model():
    layers = keras.layers
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def make():
    hyper = hn.Hypernetwork(
        model(),
        latent_dim=4,
        code_dim=3,
        extractor_hidden=(8,),
        generator_hidden=(8,),
        initialization="published",
        num_networks=4,
        lam=50.0,
    )
    return compiled(hyper)


def make_hypergan():
    gan = hn.HyperGAN(
        model(),
        noise_dim=4,
        code_dim=3,
        mixer_hidden=(8,),
        generator_hidden=(8,),
        num_networks=4,
        pretrain_steps=5,
        diversity=hn.diversity.PriorDiscriminator(hidden=(8,), optimizer="adam"),
    )
    return compiled(gan)


def compiled(sampler):
    sampler.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return sampler


def run(folder, steps, make=make, dataset=DATASET, **kwargs):
    options = {
        "images": 4,
        "num_networks": 5,
        "validate_every": 4,
        "checkpoint_every": 2,
        "seed": 0,
    }
    return train(make, dataset, folder, steps=steps, verbose=False, **options | kwargs)


def same_state(one, other):
    for a, b in zip(all_variables(one), all_variables(other), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def all_variables(sampler):
    """The variables of a sampler and of all its optimizers."""
    optimizers = [sampler.optimizer, *(term.optimizer for term in sampler.trained_terms)]
    return sampler.variables + [v for one in optimizers for v in one.variables]
