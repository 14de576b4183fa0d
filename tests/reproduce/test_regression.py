"""One-dimensional regression: its formulas, its run folder, and what the methods say."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver
from scipy.stats import norm
from small_experiments import command_line, modification_times

import hypernet_tf as hn
import reproduce.configs.regression
from reproduce import regression
from reproduce.cli import command
from reproduce.configs.regression import METHODS, Config
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError, UsageError

# Much noise, so that two leapfrog steps are accepted.
TINY = Config(
    steps=4, noise_std=60.0, many=6, few=2, chains=2, leapfrog_steps=2, burn_in=2, draws=3
)


class TestFormulas:
    def test_the_loss_is_a_negative_log_likelihood(self):
        y, f = np.array([[1.0], [-2.0], [0.5]]), np.array([[1.5], [-2.0], [3.0]])
        actual = regression.negative_log_likelihood(0.7)(y, tf.constant(f))
        np.testing.assert_allclose(actual, -norm.logpdf(y, f, 0.7)[:, 0], rtol=1e-12)

    def test_the_posterior_is_likelihood_times_prior(self):
        target = hn.Target(hn.zoo.regression())
        x, y = hn.data.cubic(5, seed=1)
        x, y = x / 4, y / 64
        theta = np.random.default_rng(0).normal(size=(3, 400)).astype("float32")
        density = regression.log_posterior(target, x, y, noise_std=0.1, prior_std=2.0)
        actual = density(tf.constant(theta)).numpy()
        expected = []
        for first, last in zip(theta[:, :200], theta[:, 200:], strict=True):
            hidden = x.astype(float) * first
            f = np.where(hidden > 0, hidden, np.expm1(hidden)) @ last
            expected.append(
                norm.logpdf(y[:, 0], f, 0.1).sum() + norm.logpdf([*first, *last], 0, 2.0).sum()
            )
        # It has no constant: differences between networks are compared.
        np.testing.assert_allclose(np.diff(actual), np.diff(expected), rtol=1e-3)

    def test_networks_see_points_of_their_own_without_replacement(self):
        x = np.arange(20.0)[:, None]
        batches = iter(regression.batches(x, x**3, networks=50, points=8, seed=3))
        first, values = next(batches)
        np.testing.assert_array_equal(values, first.numpy() ** 3)
        chosen = first.numpy().reshape(50, 8)
        assert all(len(set(points)) == 8 for points in chosen)
        assert len({tuple(points) for points in chosen}) == 50
        assert set(chosen.ravel()) == set(x[:, 0])
        assert not np.array_equal(next(batches)[0], first)
        again = next(iter(regression.batches(x, x**3, networks=50, points=8, seed=3)))
        np.testing.assert_array_equal(again[0], first)

    def test_the_measures_are_expectations_over_the_noise(self):
        random = np.random.default_rng(0)
        grid = regression.GRID
        mean, std = grid**3 + random.normal(0, 5, grid.shape), 1 + np.abs(grid)
        reference = {"mean": mean + np.where(np.abs(grid) < 4, 1.0, -3.0), "std": std / 2}
        values = regression.measure(mean, std, reference, noise_std=3.0)
        assert set(values) == {one.key for one in regression.MEASURES}
        y = grid**3 + random.normal(0, 3, (20_000, len(grid)))
        each = -norm.logpdf(y, mean, np.sqrt(std**2 + 9)).mean(0)
        inside = np.abs(grid) < 4
        assert inside.sum() == 80
        for where, chosen in (("inside", inside), ("outside", ~inside)):
            nll = values[f"negative_log_likelihood_{where}"]
            assert nll == pytest.approx(each[chosen].mean(), rel=5e-3)
            assert values[f"standard_deviation_{where}"] == pytest.approx(std[chosen].mean())
            half = values[f"standard_deviation_difference_{where}"]
            assert half == pytest.approx(std[chosen].mean() / 2)
        assert values["mean_difference_inside"] == pytest.approx(1)
        assert values["mean_difference_outside"] == pytest.approx(3)


class TestMethods:
    @pytest.mark.parametrize("name", METHODS)
    def test_each_has_as_many_networks_as_are_measured(self, name):
        config = dataclasses.replace(Config(), many=20)
        sampler = METHODS[name].build(hn.Target(hn.zoo.regression()), config)
        sampler.step.assign(config.steps)
        assert sampler.num_available in (None, 20)
        assert sampler.seed == config.seed
        again = METHODS[name].build(sampler.target, dataclasses.replace(config, seed=5))
        assert again.seed == 5

    def test_every_field_of_the_configuration_is_read(self):
        files = (regression.__file__, reproduce.configs.regression.__file__)
        source = "".join(pathlib.Path(file).read_text() for file in files)
        for field in dataclasses.fields(Config):
            assert re.search(rf"config\.{field.name}\b", source), field.name


@pytest.fixture(scope="module")
def finished(tmp_path_factory, undrawn):
    folder = tmp_path_factory.mktemp("runs") / "regression"
    with undrawn():
        return folder, regression.run(TINY, ["deep_ensemble"], folder)


class TestRunFolder:
    def test_it_holds_what_it_should(self, finished):
        folder, metrics = finished
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(TINY)
        figures = {path.name for path in (folder / "figures").iterdir()}
        names = ("predictions", "few_and_many")
        assert figures == {f"{name}.{kind}" for name in names for kind in ("npz", "pdf", "png")}
        with np.load(folder / "figures" / "predictions.npz") as arrays:
            assert arrays["names"].tolist() == ["Hamiltonian Monte Carlo", "deep ensemble"]
            assert arrays["networks"].shape == (2, 2, 120)
        with np.load(folder / "figures" / "few_and_many.npz") as arrays:
            assert arrays["names"].tolist()[2:] == [
                "deep ensemble, 2 networks",
                "deep ensemble, 6 networks",
            ]
        assert (folder / "report.html").read_text().count("data:image/png;base64,") == 2

    def test_the_table_shows_what_the_metrics_hold(self, finished):
        folder, metrics = finished
        header, _, reference, method = (folder / "table.md").read_text().splitlines()
        assert "NLL, inside (nats)" in header
        assert reference.startswith("| Hamiltonian Monte Carlo |")
        for line, values in (
            (reference, metrics["reference"]),
            (method, metrics["methods"]["deep_ensemble"]),
        ):
            cells = [float(cell) for cell in line.strip(" |").split("|")[1:]]
            expected = [values[one.key] for one in regression.MEASURES]
            np.testing.assert_allclose(cells, expected, atol=0.006)
        assert metrics["reference"]["mean_difference_outside"] == 0
        assert np.isfinite(metrics["reference"]["r_hat"])

    def test_again_it_computes_nothing(self, finished, capsys):
        folder, metrics = finished
        before = modification_times(folder)
        assert regression.run(TINY, ["deep_ensemble"], folder) == metrics
        assert "complete" in capsys.readouterr().out
        assert modification_times(folder) == before

    def test_another_method_leaves_the_others_as_they_are(self, finished, quick_pictures):
        folder, metrics = finished
        before = modification_times(folder)
        wider = regression.run(TINY, ["deep_ensemble", "sgd_chains"], folder)
        kept = [
            path for path, time in modification_times(folder).items() if before.get(path) == time
        ]
        assert {path.name for path in kept} == {"reference.npz", "deep_ensemble.npz"}
        first = metrics["methods"]["deep_ensemble"]
        assert wider["methods"]["deep_ensemble"] == first
        # Back to one method, without training.
        assert regression.run(TINY, ["deep_ensemble"], folder) == metrics
        assert (folder / "methods" / "sgd_chains.npz").exists()

    def test_a_damaged_result_is_one_line(self, finished, tmp_path, quick_pictures):
        folder = shutil.copytree(finished[0], tmp_path / "copy")
        (folder / "metrics.json").unlink()
        (folder / "methods" / "deep_ensemble.npz").write_bytes(b"PK no file of numpy")
        with pytest.raises(
            RunError, match=r"^[^\n]*deep_ensemble.npz is damaged: delete it[^\n]*$"
        ):
            regression.run(TINY, ["deep_ensemble"], folder)

    def test_other_settings_are_an_error(self, finished):
        with pytest.raises(RunError, match="has seed=0, not 1"):
            regression.run(dataclasses.replace(TINY, seed=1), ["mnf"], finished[0])


@pytest.mark.slow
def test_methods_that_share_inputs_or_start_from_data_train(finished, tmp_path, quick_pictures):
    """HyperGAN's networks see the same points; BHN sets its norms from them before step 1."""
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    names = ["hypergan", "bhn", "mc_dropout"]
    metrics = regression.run(TINY, names, folder)
    assert list(metrics["methods"]) == names
    for name, values in metrics["methods"].items():
        assert values["num_networks"] == 6
        assert all(np.isfinite(values[one.key]) for one in regression.MEASURES), name
        assert values["standard_deviation_outside"] > 0


# Seen: R-hat 1.013 and 1.017, acceptance 0.84, deviations 1.39 and 5.58. With half of the burn-in
# and 150 draws R-hat is 1.21, so the defaults are not longer than they have to be.
@pytest.mark.slow
def test_the_reference_converges_and_is_wide_only_outside():
    config = Config()
    x, y = hn.data.cubic(config.points, noise_std=config.noise_std, seed=config.seed)
    reference = regression.sample_reference(config, x, y)
    assert reference["r_hat"] < 1.05
    assert reference["r_hat_log_posterior"] < 1.05
    assert 0.6 < reference["acceptance"] < 1
    values = regression.measure(reference["mean"], reference["std"], reference, config.noise_std)
    assert values["standard_deviation_inside"] == pytest.approx(1.39, rel=0.1)
    assert values["standard_deviation_outside"] == pytest.approx(5.58, rel=0.1)


class TestCommand:
    def test_bad_flags_are_one_line(self, monkeypatch, capsys):
        monkeypatch.setattr(regression, "run", lambda *_: pytest.fail("it ran"))
        cases = {
            "--methods=": "--methods is empty: name at least one",
            "--methods=mnf,gan": "there is no method 'gan': choose from hypernetwork, mnf",
            "--methods=mnf,mnf": "--methods names a method twice",
            "--steps=0": "at least 1 training step",
            "--seed=-1": "between 0 and 2147483647",
            "--lam=2": "the regression has no --lam",
            "--dataset=mnist_5k": "the regression has no --dataset",
            "mnf": "unexpected argument 'mnf'",
        }
        for flag, expected in cases.items():
            with flagsaver.flagsaver(), pytest.raises((SystemExit, UsageError)) as end:
                command.parse_flags_only(["regression", flag])
                regression.main()
            said = capsys.readouterr().err.splitlines()
            if isinstance(end.value, SystemExit):
                assert end.value.code == 2
            else:
                said = [str(end.value)]
            assert len(said) == 1
            assert expected in said[0]

    def test_flags_become_the_configuration(self):
        with command_line("--methods=sgld,mnf", "--seed=3", "--steps=9"):
            config, methods = regression.from_flags()
        assert (config, methods) == (Config(seed=3, steps=9), ("mnf", "sgld"))
        assert str(folders.default_folder("regression", config)) == "runs/regression-seed=3"
        with command_line():
            assert regression.from_flags() == (Config(), tuple(METHODS))

    def test_a_method_of_a_users_module(self, monkeypatch):
        monkeypatch.setitem(METHODS, "mine", dataclasses.replace(METHODS["mnf"], title="Mine"))
        with command_line("--methods=mine,mnf"):
            assert regression.from_flags()[1] == ("mnf", "mine")

    def test_it_has_the_flags_that_mean_something_here(self):
        flags = {flag.name for flag in command.FLAGS.get_key_flags_for_module(regression)}
        assert flags >= {"methods", "seed", "steps", "run_dir", "extension"}
        assert flags.isdisjoint({"lam", "dataset", "num_networks", "preset"})
