"""Attacks on a member, on an ensemble and on networks sampled anew, and their detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from hypernet_tf.analysis import NothingToAttackError, attack_detection
from hypernet_tf.metrics import SCORES
from reproduce.analyses.base import Analysis, Drawing, Findings, Row, Setting, count, percent
from reproduce.analyses.subject import NUM_NETWORKS, Subject
from reproduce.runs.folder import UsageError

SEED = 1_000_000  # and above: networks that are sampled anew in each step
_MEMBERS = 10  # of the ensemble that is attacked


def _sizes(value: Any, limits: Any) -> list[float]:
    try:
        sizes = sorted({float(size) for size in value})
    except ValueError:
        sizes = []
    if not sizes or not all(0 < size <= 1 for size in sizes):
        raise UsageError("--attack_sizes takes numbers above 0 and at most 1, as 0.03,0.1")
    return sizes


IMAGES = Setting(
    "attack_images",
    500,
    "Number of test images, the first ones, whose attacks are to be detected.",
    lower_bound=1,
    resolve=lambda value, limits: min(value, limits.num_images),
)
STEPS = Setting("attack_steps", 10, "Number of steps of the iterated attacks.", lower_bound=1)
SIZES = Setting(
    "attack_sizes",
    ("0.01", "0.03", "0.08", "0.1", "0.2", "0.3", "0.5", "1.0"),
    "Sizes of the attacks, fractions of the pixel range.",
    kind="list",
    resolve=_sizes,
)


class Attacks(Analysis):
    """Fast gradient method and projected gradient, clipped; detection by the whole ensemble.

    Reference: Ratzlaff and Fuxin (2019), adversarial experiments.
    """

    name = "attacks"
    title = "attacks on members, ensembles and new networks, and their detection by uncertainty"
    figure_caption = "Attacked images that mislead the whole ensemble, and their detection"
    reading = (
        "An attack is dangerous where it misleads the ensemble and its uncertainty does not "
        "give it away: high curves on the left, areas near 50 % on the right."
    )
    highlights = (
        *("attacks_member_pgd_judge_misled", "attacks_member_pgd_mutual_information"),
        *("attacks_ensemble_pgd_judge_misled", "attacks_ensemble_pgd_mutual_information"),
        *("attacks_resampled_pgd_judge_misled", "attacks_resampled_pgd_mutual_information"),
    )
    order = 65
    settings = (NUM_NETWORKS, IMAGES, STEPS, SIZES)

    def compute(self, subject: Subject) -> Findings:
        """Attack the images; there is no figure if no image is classified correctly."""
        settings = subject.settings
        images, steps, sizes = (settings[one.name] for one in (IMAGES, STEPS, SIZES))
        attacked = subject.test[:images]
        x, y = attacked.x, np.asarray(attacked.y)
        judge, sampler = subject.ensemble(), subject.sampler
        systems: dict[str, Any] = {"member": judge[0]}
        if len(judge) > 1:
            systems["ensemble"] = judge[:_MEMBERS]
        if sampler.num_available is None:
            # Where several samplers take turns, one network alone would be of the first.
            turns = sampler.num_samplers
            systems["resampled"] = lambda step: sampler.sample(turns, seed=SEED + step)[
                step % turns
            ]
        kinds: dict[str, dict[str, Any]] = {
            "FGSM": {"steps": 1, "random_start": False},
            "PGD": {"steps": steps},
        }
        numbers: dict[str, Any] = {"num_networks": len(judge), "num_images": images, "systems": {}}
        arrays: dict[str, np.ndarray] = {"sizes": np.array(sizes)}
        titles = _titles(len(judge))
        for system, networks in systems.items():
            for kind, options in kinds.items():
                if system == "resampled" and kind == "FGSM":
                    continue  # the same as that of a member
                try:
                    result = attack_detection(networks, judge, x, y, sizes, **options)
                except NothingToAttackError:
                    print(f"no attacks on {titles[system]}: it classifies no image correctly")
                    continue
                numbers["systems"][f"{system}_{kind.lower()}"] = {
                    "attacked": result.attacked,
                    "misled": result.misled.tolist(),
                    "judge_misled": result.judge_misled.tolist(),
                    "judge_wrong": result.judge_wrong,
                    **{score: areas.tolist() for score, areas in result.auroc.items()},
                }
                name = f"{kind} on {titles[system]}"
                arrays[f"{name}, misled"] = result.judge_misled
                arrays[f"{name}, detected"] = _detection(result.auroc)
        numbers["sizes"] = sizes
        return Findings(numbers, {"attacks": arrays} if numbers["systems"] else {})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw success and detection against the size of the attacks."""
        names = [key.removesuffix(", misled") for key in arrays if key.endswith(", misled")]
        curves = {
            one: (100 * arrays[f"{one}, misled"], 100 * arrays[f"{one}, detected"]) for one in names
        }
        return plots.attack_curves(arrays["sizes"], curves)

    def side_by_side(self, numbers: Mapping[str, Mapping[str, Any]]) -> Drawing | None:
        """Draw the projected gradient on the mean of an ensemble, a curve for each run.

        A run with one network has no ensemble: its curve is that of the attack on this network.
        """
        arrays: dict[str, np.ndarray] = {}
        curves = {}
        for name, one_run in numbers.items():
            systems = one_run["systems"]
            key = "ensemble_pgd" if one_run["num_networks"] > 1 else "member_pgd"
            if one := systems.get(key):
                misled, detected = 100 * np.array(one["judge_misled"]), 100 * _detection(one)
                curves[name] = misled, detected
                arrays |= {f"{name}, misled": misled, f"{name}, detected": detected}
                arrays["sizes"] = np.array(one_run["sizes"])  # alike in all runs of a study
        if not curves:
            return None
        caption = (
            f"PGD on the mean of {_MEMBERS} networks, or of all where there are fewer: attacked "
            "images that mislead the whole ensemble, of which the attack does not know the other "
            "networks, and their detection"
        )
        figure = plots.attack_curves(arrays["sizes"], curves)
        return Drawing("attacks", caption, figure, arrays)

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """Success and detection of each attack at its size nearest to 0.1."""
        index = main_size(numbers["sizes"])
        size = f"eps = {numbers['sizes'][index]:g}"
        rows = [
            Row(
                count("attacks_num_images", "images whose attacks are to be detected"),
                numbers["num_images"],
            )
        ]
        titles = _titles(numbers["num_networks"])
        for key, values in numbers["systems"].items():
            system, kind = key.rsplit("_", 1)
            name = f"{kind.upper()} on {titles[system]}"
            rows += [
                Row(
                    count(
                        f"attacks_{key}_attacked",
                        f"{name}: attacked images, classified correctly before",
                    ),
                    values["attacked"],
                ),
                Row(
                    percent(
                        f"attacks_{key}_misled",
                        f"{name}, {size}: attacked networks misled",
                        "lower",
                    ),
                    values["misled"][index],
                ),
                Row(
                    percent(
                        f"attacks_{key}_judge_misled", f"{name}, {size}: ensemble misled", "lower"
                    ),
                    values["judge_misled"][index],
                ),
                Row(
                    percent(
                        f"attacks_{key}_judge_wrong",
                        f"{name}: ensemble wrong about these images before",
                        "lower",
                    ),
                    values.get("judge_wrong"),  # earlier results have none
                ),
            ]
            rows += [
                Row(
                    percent(
                        f"attacks_{key}_{score.key}",
                        f"{name}, {size}: detected by {score.name}, area under ROC",
                    ),
                    values[score.key][index],
                )
                for score in SCORES.values()
                if score.key in values
            ]
        return rows


def main_size(sizes: Sequence[float]) -> int:
    """Number of the size whose attacks stand for all in tables: the nearest to 0.1.

    Args:
        sizes: Sizes of attacks, fractions of the pixel range.
    """
    return int(np.argmin(np.abs(np.array(sizes) - 0.1)))


def _titles(num_networks: int) -> dict[str, str]:
    """System that is attacked -> its name in tables.

    Args:
        num_networks: Number of networks of the whole ensemble.
    """
    return {
        "member": "one network",
        "ensemble": f"the mean of {min(_MEMBERS, num_networks)} networks",
        "resampled": "a new network in each step",
    }


def _detection(areas: Mapping[str, Any]) -> np.ndarray:
    """Areas under ROC by mutual information [E]; NaN where one network has none."""
    return np.array(areas.get("mutual_information", np.full_like(areas["entropy"], np.nan)))
