"""The toy problem: its score and loss against formulas written out, training, its run folder."""

import dataclasses
import json
import math
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver
from tqdm import tqdm

from reproduce import toy
from reproduce.cli import command
from reproduce.reports import toy_figures
from reproduce.runs.folder import RunError, UsageError

TINY = toy.Config(seeds="0,3", steps=3, points=30)


@pytest.fixture(scope="module")
def mixture():
    return toy.published_mixture()


def train(mixture, seed, steps):
    config = dataclasses.replace(toy.Config(), steps=steps)
    with tqdm(total=steps, disable=True) as bar:
        model, losses = toy.train(config, seed, mixture, bar)
    z = np.linspace(-1, 1, config.points, dtype="float32")[:, None]
    return model(z).numpy(), losses


class TestScore:
    # Drawn with numpy alone, in the published order.
    def test_its_mixture_is_the_published_one(self, mixture):
        assert mixture.mu.shape == (10, 2)
        np.testing.assert_allclose(mixture.mu[0], [3.5178085, -1.39607888], rtol=1e-8)
        np.testing.assert_allclose(mixture.mu[9], [0.1358785, 1.36404767], rtol=1e-6)
        np.testing.assert_allclose(mixture.sigma[:2], [1.05528085, 1.03621721], rtol=1e-8)
        np.testing.assert_allclose(mixture.p[:2], [0.12573766, 0.10446389], rtol=1e-7)
        np.testing.assert_allclose(mixture.p.sum(), 1, rtol=1e-12)

    def test_a_single_component_is_as_high_as_its_factor_and_falls_by_its_width(self):
        alone = toy.Mixture(np.array([[1.0, -2.0]]), np.array([1.5]), np.array([0.25]))
        theta = np.array([[1.0, -2.0], [2.5, -2.0]])  # its centre, and one sigma beside it
        height = 0.25 * 2 * math.pi * 1.5**2
        expected = [height, height * math.exp(-0.5)]
        np.testing.assert_allclose(alone.score(theta), expected, rtol=1e-12)

    def test_at_a_centre_it_is_the_sum_of_all_components(self, mixture):
        expected = sum(
            p * 2 * math.pi * sigma**2 * math.exp(-np.sum((mixture.mu[4] - mu) ** 2) / sigma**2 / 2)
            for mu, sigma, p in zip(mixture.mu, mixture.sigma, mixture.p, strict=True)
        )
        np.testing.assert_allclose(mixture.score(mixture.mu[4:5]), [expected], rtol=1e-12)


class TestLoss:
    def test_it_is_the_published_one(self, mixture):
        theta = np.random.default_rng(0).normal(size=(5, 2), scale=3)
        score, squared = [], []
        for i, point in enumerate(theta):
            bells = np.exp(-np.sum((point - mixture.mu) ** 2, 1) / (2 * mixture.sigma**2))
            score.append(np.sum(mixture.p * 2 * np.pi * mixture.sigma**2 * bells))
            others = np.delete(theta, i, 0)
            squared.append(np.min(np.sum((point - others) ** 2, 1)))
        # psi(5) - psi(1) = 1 + 1/2 + 1/3 + 1/4
        entropy = 25 / 12 + np.log(2) + np.mean(np.log(np.sqrt(np.array(squared) + 1e-7)))
        expected = -np.mean(score) - 2.2 * entropy + 0.05 * np.mean(np.sum(theta**2, 1))
        actual = toy.loss(toy.Config(), mixture, tf.constant(theta))
        np.testing.assert_allclose(actual, expected, rtol=1e-10)

    def test_equal_points_cost_much_and_leave_finite_gradients(self, mixture):
        theta = tf.Variable(tf.zeros([5, 2]))
        with tf.GradientTape() as tape:
            value = toy.loss(toy.Config(), mixture, theta)
        assert value > 2.2 * 0.5 * math.log(1e7) - 10
        assert np.isfinite(tape.gradient(value, theta)).all()


class TestTraining:
    def test_the_generator_is_the_published_one(self):
        model = toy.build(0)
        shapes = [tuple(w.shape) for w in model.weights]
        assert shapes == [(1, 30), (30,), (30, 10), (10,), (10, 10), (10,), (10, 2), (2,)]
        # scale 6 over a fan-in of 30, times the 300 numbers' own spread (4 % of it)
        assert np.std(model.weights[2]) == pytest.approx(math.sqrt(6 / 30), rel=0.15)
        assert all(np.std(w) > 0 for w in model.weights)
        assert not np.array_equal(model.weights[3], model.weights[5])
        assert not np.array_equal(model.weights[0], toy.build(1).weights[0])

    def test_equal_seeds_give_equal_curves(self, mixture):
        first, losses = train(mixture, 3, 20)
        again, same = train(mixture, 3, 20)
        other, _ = train(mixture, 4, 20)
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(losses, same)
        assert not np.array_equal(first, other)

    # Seen for seeds 0, 1, 2: 8, 9, 10 components (before training 2, 1, 0), correlations -0.26,
    # -0.75, -0.35 (before 0.05, -0.01, 0.58), and losses that fell by 1.5. Another processor rounds
    # otherwise and a curve then goes another way: hence means of three seeds, and the margins.
    @pytest.mark.slow
    def test_curves_visit_the_peaks_and_are_sparse_between_them(self, mixture):
        visited, correlation = [], []
        for seed in (0, 1, 2):
            curve, losses = train(mixture, seed, 10_000)
            assert losses[-5:].mean() < losses[0] - 1
            values, _ = toy.measure(mixture, curve)
            visited.append(values["components_visited"])
            correlation.append(values["rank_correlation"])
        assert np.mean(visited) >= 7
        assert np.mean(correlation) < -0.2


class TestMeasures:
    def test_a_component_is_visited_within_one_sigma(self, mixture):
        away = mixture.mu[3] + [0.99 * mixture.sigma[3], 0]  # alone: no other centre is near
        values, _ = toy.measure(mixture, np.stack([away, [50.0, 50.0], [60.0, 50.0]]))
        assert values["components_visited"] == 1
        away = mixture.mu[3] + [1.01 * mixture.sigma[3], 0]
        values, _ = toy.measure(mixture, np.stack([away, [50.0, 50.0], [60.0, 50.0]]))
        assert values["components_visited"] == 0

    def test_wide_steps_at_low_scores_correlate_negatively(self):
        bell = toy.Mixture(np.zeros((1, 2)), np.ones(1), np.ones(1))
        curve = np.stack([np.array([0, 0.1, 0.3, 0.6, 1, 1.5]), np.zeros(6)], 1)
        values, lines = toy.measure(bell, curve)
        np.testing.assert_allclose(lines["spacing"], [0.1, 0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)
        # Ranks 1.5, 1.5, 3, 4, 5, 6 against 6 to 1.
        assert values["rank_correlation"] == pytest.approx(-17 / math.sqrt(17 * 17.5))
        assert values["score_mean"] == pytest.approx(
            2 * math.pi * np.mean(np.exp(-(curve[:, 0] ** 2) / 2))
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, undrawn):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    with undrawn():
        return folder, toy.run(TINY, folder)


class TestRunFolder:
    def test_it_holds_what_it_should(self, finished):
        folder, metrics = finished
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(TINY)
        assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(
            f"{name}.{kind}" for name in toy_figures.FIGURES for kind in ("npz", "pdf", "png")
        )

    def test_metrics_name_what_they_measure(self, finished):
        _, metrics = finished
        assert [row["seed"] for row in metrics["seeds"]] == [0, 3]
        for row in metrics["seeds"]:
            assert set(row) == {"seed", *metrics["measures"]}
        assert set(metrics["mean"]) == set(metrics["measures"])
        first, second = (row["score_mean"] for row in metrics["seeds"])
        assert metrics["mean"]["score_mean"] == pytest.approx((first + second) / 2)
        assert metrics["steps"] == 3
        assert metrics["components"] == 10

    def test_the_report_holds_its_figures(self, finished):
        text = (finished[0] / "report.html").read_text()
        assert text.count("data:image/png;base64,") == 3
        assert "within sigma_i of mu_i" in text
        assert "seed 3" in text

    def test_again_it_says_that_it_is_complete(self, finished, capsys):
        folder, metrics = finished
        before = (folder / "metrics.json").stat().st_mtime_ns
        assert toy.run(TINY, folder) == metrics
        assert "complete" in capsys.readouterr().out
        assert (folder / "metrics.json").stat().st_mtime_ns == before

    def test_other_seeds_are_an_error(self, finished):
        with pytest.raises(RunError, match="has seeds=0,3, not 0,1"):
            toy.run(dataclasses.replace(TINY, seeds="0,1"), finished[0])

    def test_an_unusable_folder_is_an_error_before_training(self):
        with pytest.raises(RunError, match=r"^the run folder /dev/null/run [^\n]*$"):
            toy.run(toy.Config(), pathlib.Path("/dev/null/run"))

    def test_every_field_of_the_configuration_is_read(self):
        source = pathlib.Path(toy.__file__).read_text()
        for field in dataclasses.fields(toy.Config):
            assert re.search(rf"config\.{field.name}\b", source), field.name


class TestCommand:
    def test_bad_flags_are_one_line(self, monkeypatch, capsys):
        monkeypatch.setattr(toy, "run", lambda *_: pytest.fail("it ran"))
        cases = {
            "--seeds=0,0": "different numbers",
            "--seeds=": "different numbers",
            "--seeds=1,-2": "between 0 and 2147483647",
            "--seeds=one": "separated by commas",
            "--steps=0": "at least 1 training step",
            "--lam=2": "the toy problem has no --lam",
            "--seed=1": "the toy problem has no --seed",
            "--dataset=mnist_5k": "the toy problem has no --dataset",
            "--seedss=1": "seedss",
            "quick": "unexpected argument 'quick'",
        }
        for flag, expected in cases.items():
            with flagsaver.flagsaver(), pytest.raises((SystemExit, UsageError)) as end:
                command.parse_flags_only(["toy", flag])
                toy.main()
            said = capsys.readouterr().err.splitlines()
            if isinstance(end.value, SystemExit):
                assert end.value.code == 2
            else:
                said = [str(end.value)]
            assert len(said) == 1
            assert expected in said[0]

    def test_it_has_the_flags_that_mean_something_here(self):
        flags = {flag.name for flag in command.FLAGS.get_key_flags_for_module(toy)}
        assert flags >= {"seeds", "steps", "run_dir"}
        assert flags.isdisjoint({"lam", "dataset", "num_networks", "preset"})
