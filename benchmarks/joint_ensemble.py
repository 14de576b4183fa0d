"""Ensembles of several finished runs, and all their networks as one ensemble.

The runs are folders of `reproduce.mnist` or `reproduce.cifar` on one data set, in one precision;
targets may differ, since predictions are put together. Each gives as many networks as its report
has. Prints a table of the test images in Markdown.

    python -m benchmarks.joint_ensemble runs/mixture "runs/mixture-seed=1" --data_dir DIR
"""

import argparse
import pathlib

import keras
import numpy as np

from hypernet_tf.ensembles.evaluation import evaluate
from hypernet_tf.ensembles.examples import Chunk
from hypernet_tf.metrics import MEASURES
from reproduce.reports.tables import markdown_table
from reproduce.runs.match import finished_run, finished_sampler
from reproduce.studies import experiment

KEYS = (
    "member_accuracy",
    "majority_vote_accuracy",
    "mean_probability_accuracy",
    "negative_log_likelihood",
    "expected_calibration_error",
    "disagreement",
)


def main():
    """Sample, evaluate, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--data_dir")
    given = parser.parse_args()
    configs = [finished_run(folder) for folder in given.runs]
    first = configs[0]
    for config in configs:
        for name in ("dataset", "precision"):
            if (value := getattr(config, name)) != getattr(first, name):
                parser.error(f"runs have --{name}={getattr(first, name)} and {value}: name one")
    keras.config.set_dtype_policy(first.precision)
    log_p = {}
    for folder, config in zip(given.runs, configs, strict=True):
        test = experiment.load(config, given.data_dir).test
        ensemble = finished_sampler(folder, config).sample(config.num_networks, seed=1)
        log_p[str(folder)] = ensemble.log_probabilities(test.x, verbose=1)
    if len(log_p) > 1:
        log_p["together"] = np.concatenate(list(log_p.values()))
    rows = []
    for name, values in log_p.items():
        numbers = evaluate([(values, Chunk(None, test.y))], values.shape[-1]).summary()
        rows.append([name, str(len(values)), *(MEASURES[k].text(numbers[k]) for k in KEYS)])
    titles = [MEASURES[key].heading for key in KEYS]
    print(markdown_table(["", "networks", *titles], rows))


if __name__ == "__main__":
    main()
