"""A small sampler of each kind, and its training, for tests of what samplers have in common."""

import keras
import tensorflow as tf

import hypernet_tf as hn

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier(*extra):
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((2,)), layers.Dense(8, activation="relu"), *extra, layers.Dense(3)]
    )


def hypernetwork(model=None, **kwargs):
    settings = {
        "latent_dim": 4,
        "code_dim": 3,
        "extractor_hidden": (16,),
        "generator_hidden": (12,),
        "initialization": "published",
        "num_networks": 6,
        "lam": 100.0,
    }
    return hn.Hypernetwork(hn.Target(model or classifier()), **settings | kwargs)


def deep_ensemble(model=None, **kwargs):
    return hn.DeepEnsemble(hn.Target(model or classifier()), **{"num_networks": 12} | kwargs)


def mnf(model=None, **kwargs):
    return hn.MNF(hn.Target(model or classifier()), **{"num_networks": 6, "num_data": 96} | kwargs)


def bhn(model=None, **kwargs):
    settings = {"num_networks": 6, "num_data": 96, "hidden": 16, "num_steps": 2}
    return hn.BHN(hn.Target(model or classifier()), **settings | kwargs)


def mc_dropout(model=None, **kwargs):
    target = hn.Target(model or classifier())
    settings = {"num_networks": 6, "num_data": 96, "length_scale": 0.1}
    settings["rates"] = {target.layers[-1].name: 0.05}
    return hn.MCDropout(target, **settings | kwargs)


def apd(model=None, **kwargs):
    target = hn.Target(model or classifier())
    theta = tf.random.stateless_normal([12, target.weight_count], [0, 1])
    settings = {"ensemble": hn.Ensemble(target, target.unflatten(theta))}
    settings |= {"num_networks": 6, "hidden": (16,), "latent_dim": 4}
    return hn.APD(target, **settings | kwargs)


def noise_control(model=None, **kwargs):
    return hn.NoiseControl(hn.Target(model or classifier()), **{"scale": 0.05} | kwargs)


def chains(model=None, **kwargs):
    settings = {"num_chains": 10, "num_snapshots": 2, "snapshot_every": 2}
    return hn.SGDChains(hn.Target(model or classifier()), **settings | kwargs)


def langevin(model=None, **kwargs):
    settings = {"num_chains": 12, "lam": 96.0}
    return hn.SGLD(hn.Target(model or classifier()), **settings | kwargs)


def mixture(model=None, **kwargs):
    return hn.Mixture([hypernetwork(model, initialization="scaled") for _ in range(2)], **kwargs)


def hypergan(model=None, **kwargs):
    settings = {
        "noise_dim": 4,
        "code_dim": 3,
        "mixer_hidden": (16,),
        "generator_hidden": (16,),
        "initialization": "model",
        "num_networks": 6,
        "pretrain_steps": 20,
        "diversity": discriminator(),
    }
    return hn.HyperGAN(hn.Target(model or classifier()), **settings | kwargs)


def discriminator(optimizer="adam"):
    return hn.diversity.PriorDiscriminator(hidden=(16,), optimizer=optimizer)


SAMPLERS = {
    hn.Hypernetwork: hypernetwork,
    hn.Mixture: mixture,
    hn.HyperGAN: hypergan,
    hn.DeepEnsemble: deep_ensemble,
    hn.NoiseControl: noise_control,
    hn.MNF: mnf,
    hn.MCDropout: mc_dropout,
    hn.BHN: bhn,
    hn.APD: apd,
    hn.SGDChains: chains,
    hn.SGLD: langevin,
}


def optimizer(sampler):
    """An optimizer for the sampler: Langevin dynamics follow plain SGD, a GAN needs small steps."""
    if isinstance(sampler, hn.SGLD):
        return keras.optimizers.SGD(2e-3)
    return keras.optimizers.Adam(1e-3 if isinstance(sampler, hn.APD) else 0.02)


def fitted(make, x, y, loss=LOGITS, epochs=25, **kwargs):
    """A trained sampler and its history; APD learns the last networks of a chain."""
    sampler = make(**kwargs)
    if isinstance(sampler, hn.APD):
        chain = hn.SGDChains(sampler.target, num_chains=1, num_snapshots=8, snapshot_every=2)
        chain.compile(optimizer=keras.optimizers.Adam(0.02), loss=loss)
        chain.fit(x, y, batch_size=16, epochs=epochs, verbose=0)
        sampler.learn_from(chain.sample(8))
    sampler.compile(optimizer=optimizer(sampler), loss=loss, metrics=["accuracy"])
    history = sampler.fit(x, y, batch_size=48, epochs=epochs, verbose=0)
    return sampler, history.history
