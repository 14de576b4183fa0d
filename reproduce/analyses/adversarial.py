"""Success of the fast gradient method against one network and against ensembles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from hypernet_tf.analysis.attacks import NothingToAttackError, adversarial_success
from reproduce.analyses.base import Analysis, Findings, Limits, Row, Setting, count, percent
from reproduce.analyses.subject import Subject

SEED = 100_000  # and above: each attacked image takes new networks
_REPORTED_SIZES = (8, 16, 32)


def _networks(value: int, limits: Limits) -> int:
    if limits.num_available is None:
        return value
    return min(value, limits.num_available) if limits.num_available > 1 else 0


IMAGES = Setting(
    "adversarial_images",
    1_000,
    "Number of test images, the first ones, that are attacked.",
    lower_bound=1,
    resolve=lambda value, limits: min(value, limits.num_images),
)
NETWORKS = Setting(
    "adversarial_networks",
    100,
    "Number of networks of the ensemble that votes on an attacked image.",
    lower_bound=1,
    resolve=_networks,
)
CLIP = Setting("clip", False, "Clip attacked images to the pixel range.", kind="boolean")


class Adversarial(Analysis):
    """Attacks on one network that mislead it, and an ensemble that sees the same images.

    Reference: Deutsch et al. (2019), section 4.1.
    """

    name = "adversarial"
    title = "attacks by the fast gradient method"
    figure_caption = "Attacks by the fast gradient method: success against their size"
    reading = (
        "The lower the curve of the vote below that of the network, the less an attack on one "
        "network carries over to others."
    )
    order = 60
    settings = (IMAGES, NETWORKS, CLIP)

    def compute(self, subject: Subject) -> Findings:
        """Attack the images; there is no figure if no image is classified correctly."""
        sampler, test = subject.sampler, subject.test
        images, networks, clip = (subject.settings[setting.name] for setting in self.settings)
        try:
            success = adversarial_success(
                lambda count, seed: sampler.sample(count, seed=seed),
                test[:images].x,
                np.asarray(test[:images].y, np.int64),
                num_networks=networks,
                clip=(0.0, 1.0) if clip else None,
                batch_size=sampler.at_most(32),
                seed=SEED,
                verbose=1,
            )
        except NothingToAttackError as error:
            print(f"no attacks: {error}")
            return Findings({"num_images": images, "num_attacked": 0, "num_networks": 0}, {})
        arrays = {name: value for name, value in success._asdict().items() if value is not None}
        arrays["epsilons"] = np.rint(255 * success.epsilons).astype(int)
        numbers = {
            "num_images": success.images,
            "num_attacked": success.attacked,
            "num_networks": networks,
            "fresh_networks": sampler.num_available is None,
        } | {
            name: value.tolist()
            for name, value in arrays.items()
            if name not in ("images", "attacked")
        }
        return Findings(numbers, {"adversarial": arrays})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw the success against the size of the attack."""
        curves = {"one network": 100 * arrays["network"]}
        if "ensemble" in arrays:
            which = "fresh" if numbers["fresh_networks"] else "of the sampler's"
            curves[f"vote of {numbers['num_networks']} {which} networks"] = 100 * arrays["ensemble"]
        return plots.success_curves(arrays["epsilons"] / 255, curves)

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The counts, and the success of attacks of three sizes."""
        rows = [
            Row(count("adversarial_num_images", "test images for attacks"), numbers["num_images"]),
            Row(
                count(
                    "adversarial_num_attacked", "attacked images: those correctly classified before"
                ),
                numbers["num_attacked"],
            ),
            Row(
                count(
                    "adversarial_num_networks",
                    "networks in the ensemble that votes on attacked images",
                ),
                numbers["num_networks"],
            ),
        ]
        if not numbers["num_attacked"]:
            return rows
        voters = ("network", "ensemble") if numbers["num_networks"] else ("network",)
        for size in _REPORTED_SIZES:
            index = numbers["epsilons"].index(size)
            for voter in voters:
                measure = percent(
                    f"adversarial_{voter}_misled_at_{size}",
                    f"attacked images that mislead the {voter} at eps = {size}/255",
                    "lower",
                )
                rows.append(Row(measure, numbers[voter][index]))
        return rows
