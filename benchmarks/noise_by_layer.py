"""Where noise around a trained network does its harm: accuracy with noise in some layers only.

    python -m benchmarks.noise_by_layer HYPERNETWORK_RUN NOISE_RUN

Both are folders of finished `reproduce.mnist` runs. In each layer by itself, noise is made as
strong as it takes for 50 noisy networks to be as far from their nearest neighbours, in that layer,
as 50 networks of the hypernetwork. Printed are mean and vote of 50 networks with such noise in one
layer, in all layers, and in all but the last.
"""

import argparse
import pathlib

import numpy as np
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.diversity import nearest_neighbour_distances
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce.configs import RunConfig
from reproduce.runs.folder import RunError, finished

NETWORKS = 50


def distance(vectors):
    """Geometric mean over networks of the distance to the nearest neighbour."""
    near = nearest_neighbour_distances(tf.constant(vectors, tf.float32))
    return float(np.exp(np.log(near).mean()))


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hypernetwork", type=pathlib.Path)
    parser.add_argument("noise", type=pathlib.Path)
    folders = parser.parse_args()
    try:
        config, _ = finished(folders.noise, RunConfig)
        finished(folders.hypernetwork, RunConfig)
    except RunError as error:
        parser.error(str(error))
    test = hn.data.load(config.dataset).test
    hyper, control = (
        Checkpoints(folder / "checkpoints").load()[0]
        for folder in (folders.hypernetwork, folders.noise)
    )
    control.scale.assign(0.0)
    target = control.target
    layers = np.cumsum([layer.filters * layer.row_size for layer in target.layers])[:-1]
    wanted = np.split(hyper.sample(NETWORKS, seed=1).theta(), layers, 1)
    clean = np.split(np.repeat(control.sample(1).theta(), NETWORKS, 0), layers, 1)
    random = np.random.default_rng(0)
    noisy = []
    for place, (theirs, own) in enumerate(zip(wanted, clean, strict=True), 1):
        z = random.normal(size=own.shape)
        scale = distance(theirs) / distance(z)
        noisy.append(own + scale * z)
        size = np.sqrt((own**2).mean())
        print(f"layer {place}: weights of size {size:.3g}, noise of {scale:.3g}")
    count = len(clean)
    cases = {"no layer": set()} | {f"layer {k + 1}": {k} for k in range(count)}
    cases |= {"all layers": set(range(count)), "all but the last": set(range(count - 1))}
    for name, places in cases.items():
        theta = np.concatenate([(noisy if k in places else clean)[k] for k in range(count)], 1)
        ensemble = hn.Ensemble(target, target.unflatten(tf.constant(theta, tf.float32)))
        result = ensemble.evaluate(test.x, test.y)
        mean, vote = 100 * result.member_accuracy.mean(), 100 * result.majority_vote_accuracy
        print(f"noise in {name}: mean {mean:.2f} %, vote {vote:.2f} %")


if __name__ == "__main__":
    main()
