"""A small run of a sampler that no analysis knows, and how its analyses are read."""

import keras
import numpy as np
import tensorflow as tf
from matplotlib import image

import hypernet_tf as hn
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce.configs import RunConfig


@keras.saving.register_keras_serializable(package="tests")
class Bent(hn.NoiseControl):
    """Networks around a trained one, on a bent manifold: little training makes them accurate."""

    def generate(self, z, *, training=False):
        if training:
            return super().generate(z, training=True)
        centre = super().generate(tf.zeros_like(z)).trainable
        bends = self.target.unflatten(1.0 + self.scale * tf.sin(3.0 * z)).trainable
        return Draw([weights * bend for weights, bend in zip(centre, bends, strict=True)], z)


def bent(config, num_data, classes=10):
    sampler = Bent(hn.Target(hn.zoo.mnist(), outputs="logits"), scale=0.7, seed=config.seed)
    sampler.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return sampler


TINY = RunConfig(
    "mnist",
    "hypernetwork",
    "paper",
    "mnist",
    dataset="mnist_5k",
    steps=60,
    num_networks=5,
    networks_per_step=32,
    images_per_network=40,
    learning_rate=3e-3,
    validate_every=60,
    checkpoint_every=60,
)
SMALL = {
    "num_networks": 3,
    "ensembles": 2,
    "ensemble_sizes": ["1", "3"],
    "scatter_networks": 8,
    "posterior_networks": 8,
    "path_pairs": 2,
    "path_points": 3,
    "path_images": 30,
    "adversarial_images": 32,
    "adversarial_networks": 3,
    "attack_images": 20,
    "attack_steps": 2,
    "attack_sizes": ["0.1"],
    "ood": ["glyphs", "noise"],
}
_ATTACKS = ("adversarial_images", "attack_images", "attack_steps", "attack_sizes", "ood")
ALONE = {name: SMALL[name] for name in _ATTACKS}
_LOADED = {}  # text of checkpoint.json -> sampler


def sampler_of(folder):
    """The sampler of a run, loaded once for all copies of its checkpoint. Do not change it."""
    checkpoints = folder / "checkpoints"
    text = (max(checkpoints.glob("step-*")) / "checkpoint.json").read_text()
    if text not in _LOADED:
        _LOADED[text] = Checkpoints(checkpoints).load()[0]
    return _LOADED[text]


def digits():
    test = hn.data.load("mnist_5k").test
    return test.x, test.y


def arrays(folder, name):
    with np.load(folder / "figures" / f"{name}.npz") as saved:
        return dict(saved)


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "figures").iterdir()}


def check_figure(folder, name):
    """A figure is drawn, fits half a page, and has its finite arrays beside it."""
    path = folder / "figures" / name
    picture = image.imread(path.with_suffix(".png"))
    height, width = picture.shape[:2]
    assert width <= 7 * 150  # at the figures' 150 dots per inch
    assert height <= 7.6 * 150
    assert picture[..., :3].std() > 0.02
    assert path.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"
    numbers = arrays(folder, name)
    assert numbers
    if name == "reliability":  # a bin without images has no mean
        filled = numbers["share"] > 0
        numbers |= {name: numbers[name][filled] for name in ("accuracy", "confidence")}
    assert all(np.isfinite(v).all() for v in numbers.values() if v.dtype.kind != "U")


def check_page(folder, entry, analysis):
    """The page shows the rows of an analysis, and its figures with their captions.

    Returns:
        Key of a row -> its value, in the order of the rows.
    """
    text = (folder / "report.html").read_text().replace("&#x27;", "'")
    rows = analysis.rows(entry)
    for row in rows:
        value = row.measure.text(row.value) or "not available"
        assert f'<td>{row.measure.heading}</td><td class="n">{value}</td>' in text
        assert row.measure.key.startswith(("ood_", f"{analysis.name}_"))
    captions = [analysis.caption(name) for name in entry["figures"]]
    assert len(set(captions)) == len(captions)
    for caption in captions:
        assert text.count(f"<figcaption>{caption}</figcaption>") == 1
    values = {row.measure.key: row.value for row in rows}
    assert len(values) == len(rows)
    return values
