"""Analyses of runs, and runs side by side, as the commands perform them."""

import dataclasses
import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import image

import hypernet_tf as hn
from hypernet_tf.analysis.attacks import NothingToAttackError
from hypernet_tf.metrics import similarity
from hypernet_tf.metrics.ood import ood_metrics
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce import mnist, report
from reproduce.analyses import analyses as _analyses
from reproduce.analyses import perform as _perform
from reproduce.analyses import subject as _subject
from reproduce.analyses.subject import Settings
from reproduce.cli import analysis_flags as _analysis_flags
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.runs import experiment as _experiment
from reproduce.runs import folder as _run


@keras.saving.register_keras_serializable(package="tests")
class Bent(hn.NoiseControl):
    """Networks around a trained one, on a bent manifold: little training makes them accurate."""

    def generate(self, z, *, training=False):
        if training:
            return super().generate(z, training=True)
        centre = super().generate(tf.zeros_like(z)).trainable
        bends = self.target.unflatten(1.0 + self.scale * tf.sin(3.0 * z)).trainable
        return Draw([own * bend for own, bend in zip(centre, bends, strict=True)], z)


def bent(config, num_data, classes=10):
    sampler = Bent(hn.Target(hn.zoo.mnist(), outputs="logits"), scale=0.7, seed=config.seed)
    sampler.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return sampler


TINY = mnist.Config(
    dataset="mnist_5k",
    steps=60,
    num_networks=5,
    images_per_network=40,
    learning_rate=3e-3,
    validate_every=60,
    checkpoint_every=60,
)
ALONE = Settings(num_networks=1, adversarial_images=32, outside="glyphs,noise")
SMALL = Settings(
    num_networks=3,
    ensembles=2,
    scatter_networks=8,
    pairs=2,
    points=3,
    path_images=30,
    adversarial_images=32,
    adversarial_networks=3,
    outside="glyphs,noise",
)
FIGURES = {
    "accuracies": ["accuracy_histogram"],
    "ensembles": ["ensembles"],
    "filters": ["filters"],
    "scatter": [
        "scatter_all_weights",
        "scatter_layer_1",
        "scatter_layer_2",
        "scatter_layer_3",
        "scatter_layer_4",
        "scatter_layer_1_filter_1",
        "scatter_layer_2_filter_1",
        "scatter_layer_3_filter_1",
        "scatter_layer_4_filter_1",
    ],
    "paths": ["paths"],
    "adversarial": ["adversarial"],
    "filter_diversity": ["filter_diversity"],
    "uncertainty": ["reliability", "risk_coverage"],
    "out_of_distribution": [
        "ood_entropy",
        "ood_roc_entropy",
        "ood_mutual_information",
        "ood_roc_mutual_information",
        "ood_variance",
        "ood_roc_variance",
    ],
}
# Scatter matrices of the layers differ in numbers and titles only: those of one layer are drawn.
UNDRAWN = {name for name in FIGURES["scatter"] if name.startswith("scatter_layer")} - {
    "scatter_layer_4",
    "scatter_layer_4_filter_1",
}


pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_digits):
    """A run of a sampler that the analyses were not written for."""
    folder = tmp_path_factory.mktemp("runs") / "generated"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_experiment, "build", bent)
        mnist.run(TINY, folder)
    return folder


@pytest.fixture
def as_bent(monkeypatch):
    """Where training goes on."""
    monkeypatch.setattr(_experiment, "build", bent)


@pytest.fixture(scope="module")
def analysed(finished, tmp_path_factory, undrawn):
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "analysed")
    checkpoint = folder / "checkpoints" / "step-00000060" / "model.keras"
    before = checkpoint.stat().st_mtime_ns
    with undrawn(UNDRAWN):
        metrics = mnist.run(TINY, folder, analyses=["all"], settings=SMALL)
    assert checkpoint.stat().st_mtime_ns == before  # nothing was trained
    return folder, metrics


@pytest.fixture(scope="module")
def single(tmp_path_factory, few_digits, undrawn):
    """A finished run of the single network, with all the analyses that one network can have."""
    folder = tmp_path_factory.mktemp("runs") / "single"
    config = dataclasses.replace(
        mnist.defaults("sgd", "quick"),
        dataset="mnist_5k",
        steps=30,
        images_per_network=20,
        validate_every=30,
        checkpoint_every=30,
    )
    with undrawn():
        return folder, mnist.run(config, folder, analyses=["all"], settings=ALONE)


def sampler_of(folder):
    return Checkpoints(folder / "checkpoints").load()[0]


def digits():
    test = hn.data.load("mnist_5k").test
    return test.x, test.y


def arrays(folder, name):
    with np.load(folder / "figures" / f"{name}.npz") as saved:
        return dict(saved)


def times(folder):
    return {p.name: p.stat().st_mtime_ns for p in (folder / "figures").iterdir()}


class TestAnalyses:
    def test_every_analysis_is_tested(self):
        assert set(FIGURES) == set(_analyses.ANALYSES)

    def test_settings_say_what_an_analysis_depends_on(self):
        """Each analysis names the settings that its code reads, and no other."""
        for name, analysis in _analyses.ANALYSES.items():
            source = inspect.getsource(analysis.run)
            read = set(re.findall(r"settings\.(\w+)", source))
            if "evaluations()" in source:
                read |= {"num_networks", "ensembles"}
            if "subject.ensemble()" in source:
                read |= {"num_networks"}
            if "_strange(subject)" in source:
                read |= {"outside"}
            assert read == set(analysis.uses), name

    @pytest.mark.parametrize("name", FIGURES)
    def test_it_writes_its_figures_and_the_numbers_behind_them(self, analysed, name):
        folder, metrics = analysed
        found = metrics["analyses"][name]
        assert found["figures"] == FIGURES[name]
        assert found["settings"]["steps"] == 60
        assert found["seconds"] >= 0
        for figure in FIGURES[name]:
            path = folder / "figures" / figure
            if figure in UNDRAWN:
                assert path.with_suffix(".png").exists() and path.with_suffix(".pdf").exists()
            else:
                picture = image.imread(path.with_suffix(".png"))
                height, width = picture.shape[:2]
                assert width <= 7 * 150  # half a page, at the figures' 150 dots per inch
                assert height <= 7.6 * 150
                assert picture[..., :3].std() > 0.02
                assert path.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"
            numbers = arrays(folder, figure)
            assert numbers
            if figure == "reliability":  # a bin without images has no mean
                filled = numbers["share"] > 0
                numbers |= {name: numbers[name][filled] for name in ("accuracy", "confidence")}
            assert all(np.isfinite(values).all() for values in numbers.values())

    def test_accuracies_and_ensembles(self, analysed):
        folder, metrics = analysed
        found, sampler, test = metrics["analyses"], sampler_of(folder), digits()
        members = np.stack(
            [
                [n.evaluate(*test).member_accuracy[0] for n in sampler.sample(3, seed=k)]
                for k in (1, 2)
            ]
        )
        assert 0.3 < members.mean() < 0.99
        assert members.std() > 0.01
        saved = arrays(folder, "accuracy_histogram")
        np.testing.assert_allclose(saved["accuracies"], members.ravel())
        np.testing.assert_allclose(saved["mean_of_the_networks"], 100 * members.mean())
        assert saved["bin_width"] == 100 / 80  # one image; 0.05 points would be less
        spread = {"mean": members.mean(), "std": members.std(ddof=1)}
        for value in (found["accuracies"], found["ensembles"]["member"]):
            for name, expected in spread.items():
                np.testing.assert_allclose(value[name], expected)
        assert found["accuracies"]["lowest"] == members.min()
        assert found["accuracies"]["highest"] == members.max()
        saved = arrays(folder, "ensembles")
        np.testing.assert_allclose(saved["members"], members)
        results = [sampler.sample(3, seed=k).evaluate(*test) for k in (1, 2)]
        for name in ("majority_vote", "mean_probability", "most_confident"):
            expected = np.array([getattr(r, f"{name}_accuracy") for r in results])
            np.testing.assert_allclose(saved[name], expected)
            np.testing.assert_allclose(found["ensembles"][name]["mean"], expected.mean())
            np.testing.assert_allclose(found["ensembles"][name]["std"], expected.std(ddof=1))

    def test_paths(self, analysed):
        folder, metrics = analysed
        found, saved = metrics["analyses"]["paths"], arrays(folder, "paths")
        sampler, (x, y) = sampler_of(folder), digits()
        z = sampler.sample_latent(4, seed=_analyses._PATHS).numpy()
        between = np.concatenate([z[:2], (z[:2] + z[2:]) / 2, z[2:]])  # two paths, three points
        middle = hn.Ensemble(sampler.target, sampler.weights_of(between))
        expected = middle.evaluate(x[:30], y[:30]).member_accuracy.reshape(3, 2).T
        np.testing.assert_allclose(saved["interpolated"], expected)
        theta = sampler.target.flatten(sampler.weights_of(z)).numpy()
        line = sampler.target.unflatten((theta[:2] + theta[2:]) / 2)
        straight = hn.Ensemble(sampler.target, line).evaluate(x[:30], y[:30]).member_accuracy
        np.testing.assert_allclose(saved["direct"][:, 1], straight)
        np.testing.assert_allclose(saved["direct"][:, ::2], expected[:, ::2])
        assert (saved["direct"] != saved["interpolated"]).any()
        for kind in ("direct", "interpolated"):
            along = saved[kind]
            ends = (along[:, 0] + along[:, 2]) / 2
            assert found[kind] == pytest.approx(
                {
                    "ends": ends.mean(),
                    "lowest_of_each_path": along.min(1).mean(),
                    "mean_along": along.mean(),
                    "dip": (ends - along.min(1)).mean(),
                }
            )

    def test_attacks(self, analysed, finished, tmp_path, quick_pictures):
        folder, metrics = analysed
        found, saved = metrics["analyses"]["adversarial"], arrays(folder, "adversarial")
        assert found["epsilons"] == list(range(0, 60, 2))
        assert found["images"] == 32
        assert 10 < found["attacked"] <= 32
        assert found["network"][0] == 0
        assert found["network"][-1] > 0.5
        for name in ("network", "ensemble", "network_reached", "ensemble_reached"):
            np.testing.assert_allclose(found[name], saved[name])
            assert len(found[name]) == 30
        assert found["network"] != found["ensemble"]
        clipped = shutil.copytree(finished, tmp_path / "run")
        settings = dataclasses.replace(SMALL, clip=True)
        other = mnist.run(TINY, clipped, analyses=["adversarial"], settings=settings)
        assert other["analyses"]["adversarial"]["attacked"] == found["attacked"]
        assert other["analyses"]["adversarial"]["network"] != found["network"]

    def test_scatter_and_filters(self, analysed):
        folder, metrics = analysed
        found, sampler = metrics["analyses"], sampler_of(folder)
        vectors = sampler.sample(8, seed=_analyses._SCATTER).theta().astype("float64")
        vectors -= vectors.mean(0)
        singular = np.linalg.svd(vectors, compute_uv=False) ** 2
        view = found["scatter"]["views"]["all weights"]
        assert view["weights"] == 20_018
        np.testing.assert_allclose(view["explained"], (singular / singular.sum())[:6], rtol=1e-3)
        saved = arrays(folder, "scatter_all_weights")
        np.testing.assert_allclose(saved["explained"], view["explained"])
        np.testing.assert_allclose((saved["coordinates"] ** 2).sum(0), singular[:6], rtol=1e-3)
        pictures = arrays(folder, "filters")
        first, _, _, _, third, *_ = sampler.sample(25, seed=_analyses._FILTERS).weights.trainable
        np.testing.assert_array_equal(pictures["layer_1"], first[..., 0, 0])
        # Neuron 1 reads channel 1 of the 16 at each of the 7 x 7 pixels.
        np.testing.assert_array_equal(pictures["layer_3"].reshape(25, 49), third[:, ::16, 0])
        assert pictures["layer_4"].shape == (25, 8, 10)

    def test_filter_diversity(self, analysed):
        folder, metrics = analysed
        found = metrics["analyses"]["filter_diversity"]["layers"]
        assert list(found) == ["layer 1", "layer 2", "layer 3"]
        saved = arrays(folder, "filter_diversity")
        for place, layer in enumerate(found.values(), 1):
            diversity, read = saved[f"diversity_{place}"], saved[f"next_weights_{place}"]
            np.testing.assert_allclose(layer["diversity_mean"], diversity.mean())
            ranks = [np.argsort(np.argsort(values)) for values in (diversity, read)]
            expected = np.corrcoef(*ranks)[0, 1]
            np.testing.assert_allclose(layer["rank_correlation"], expected, rtol=1e-6)
            assert abs(expected) < 0.999

    def test_uncertainty(self, analysed):
        folder, metrics = analysed
        found = metrics["analyses"]["uncertainty"]
        x, y = digits()
        ensemble = sampler_of(folder).sample(3, seed=1)
        result, unsure = ensemble.evaluate(x, y), ensemble.uncertainty(x)
        assert found["expected_calibration_error"]["ensemble"] == pytest.approx(
            result.expected_calibration_error
        )
        alone = [member.evaluate(x, y).brier_score for member in ensemble]
        assert found["brier_score"]["member_mean"] == pytest.approx(np.mean(alone))
        right = ensemble.predict(x).argmax(-1) == y
        assert 0 < right.sum() < len(y)
        assert found["entropy"]["mean_of_wrong"] == pytest.approx(unsure.entropy[~right].mean())
        assert found["variance"]["mean_of_right"] == pytest.approx(unsure.variance[right].mean())
        pair = similarity.pairwise_kl_divergence(ensemble.log_probabilities(x)).mean()
        assert found["pairs"]["kl_divergence"] == pytest.approx(pair, rel=1e-4)
        curve = arrays(folder, "risk_coverage")
        assert curve["entropy, y"][-1] == pytest.approx(1 - result.mean_probability_accuracy)
        np.testing.assert_allclose(arrays(folder, "reliability")["share"].sum(), 1)

    def test_out_of_distribution(self, analysed):
        folder, metrics = analysed
        found = metrics["analyses"]["out_of_distribution"]
        assert {name: data["images"] for name, data in found["sets"].items()} == {
            "glyphs": 80,
            "noise": 1_000,
        }
        ensemble = sampler_of(folder).sample(3, seed=1)
        inside, outside = (
            ensemble.uncertainty(split.x)
            for split in (hn.data.load("mnist_5k").test, hn.data.load("glyphs").test)
        )
        for score in ("entropy", "mutual_information", "variance"):
            expected = ood_metrics(getattr(inside, score), getattr(outside, score))
            measured = found["sets"]["glyphs"][score]
            assert measured["auroc"] == pytest.approx(expected.auroc)
            curve = arrays(folder, f"ood_roc_{score}")
            area = np.trapezoid(curve["glyphs, y"], curve["glyphs, x"])
            assert measured["auroc"] == pytest.approx(area)
            np.testing.assert_allclose(
                arrays(folder, f"ood_{score}")["glyphs"], getattr(outside, score), rtol=1e-4
            )

    def test_what_cannot_be_strange(self, finished):
        for outside, words in (
            ("glyphs,cats", "no data set 'cats': --outside takes mnist, mnist_5k, fashion_mnist"),
            ("mnist", "is what networks of mnist_5k have learned"),
            ("glyphs,glyphs", "up to 3 data sets, each once"),
        ):
            with pytest.raises(_run.UsageError, match=words):
                mnist.run(
                    TINY,
                    finished,
                    analyses=["out_of_distribution"],
                    settings=dataclasses.replace(SMALL, outside=outside),
                )

    def test_a_usual_strange_set_that_is_not_here_is_left_out(
        self, finished, tmp_path, monkeypatch, quick_pictures, capsys
    ):
        real = hn.data.load

        def load(name, data_dir=None):
            if name == "fashion_mnist":
                raise hn.data.DataError("fashion_mnist is not here")
            return real(name, data_dir)

        monkeypatch.setattr(hn.data, "load", load)
        folder = shutil.copytree(finished, tmp_path / "run")
        usual, named = (dataclasses.replace(SMALL, outside=n) for n in ("", "fashion_mnist"))
        metrics = mnist.run(TINY, folder, analyses=["out_of_distribution"], settings=usual)
        assert "left out: fashion_mnist is not here" in capsys.readouterr().out
        assert set(metrics["analyses"]["out_of_distribution"]["sets"]) == {"glyphs", "noise"}
        with pytest.raises(hn.data.DataError, match="fashion_mnist is not here"):
            mnist.run(TINY, folder, analyses=["out_of_distribution"], settings=named)

    def test_the_report_shows_them(self, analysed):
        folder, _ = analysed
        text = (folder / "report.html").read_text()
        assert text.count("data:image/png;base64,") == 1 + sum(map(len, FIGURES.values()))
        for words in (
            "majority vote, mean over ensembles",
            "interpolated paths, lowest accuracy",
            "misled by eps = 16/255: ensemble",
            "all weights: variance in 6 components",
            "rank correlation of diversity",
        ):
            assert words in text

    def test_what_is_done_is_not_done_again(self, analysed, tmp_path, quick_pictures):
        folder = shutil.copytree(analysed[0], tmp_path / "run")
        before = times(folder)
        again = mnist.run(TINY, folder, analyses=["all"], settings=SMALL)
        assert again == analysed[1]
        assert times(folder) == before
        other = dataclasses.replace(SMALL, points=4)
        changed = mnist.run(TINY, folder, analyses=["filters", "paths"], settings=other)
        after = times(folder)
        assert {name for name in before if before[name] != after[name]} == {
            "paths.png",
            "paths.pdf",
            "paths.npz",
        }
        assert changed["analyses"]["paths"]["points"] == 4
        assert changed["analyses"]["adversarial"] == analysed[1]["analyses"]["adversarial"]

    @pytest.mark.slow
    def test_colour_on_request(self, finished, tmp_path, quick_pictures):
        folder = shutil.copytree(finished, tmp_path / "run")
        settings = dataclasses.replace(SMALL, colour=True)
        mnist.run(TINY, folder, analyses=["scatter"], settings=settings)
        networks = sampler_of(folder).sample(8, seed=_analyses._SCATTER)
        np.testing.assert_allclose(
            arrays(folder, "scatter_all_weights")["accuracy_percent"],
            100 * networks.evaluate(*digits()).member_accuracy,
        )

    def test_one_network_has_the_analyses_of_one_network(self, single):
        folder, metrics = single
        assert metrics["method"] == "sgd"
        assert metrics["parameters"] == metrics["target_weights"] == 20_018
        assert metrics["networks"]["count"] == 1
        assert metrics["networks"]["accuracy_std"] is None
        assert set(metrics["diversity"].values()) == {None}
        several = {"ensembles", "scatter", "paths", "filter_diversity"}
        assert set(metrics["analyses"]) == set(_analyses.ANALYSES) - several
        assert "pairs" not in metrics["analyses"]["uncertainty"]
        assert metrics["analyses"]["uncertainty"]["mutual_information"]["mean"] == 0
        assert "ensemble" not in metrics["analyses"]["adversarial"]
        assert "NaN" not in (folder / "metrics.json").read_text()

    def test_an_analysis_of_more_networks_than_there_are(self, single, capsys):
        folder, _ = single
        config = _run.finished(folder, mnist.Config)[0]
        for name, needs in (("scatter", 7), ("paths", 2), ("ensembles", 2)):
            for place in (folder, folder.parent / "fresh"):
                with pytest.raises(_run.UsageError) as error:
                    mnist.run(config, place, analyses=[name, "all"])
            assert not place.exists()  # refused before anything is trained
            assert str(error.value) == (
                f"the analysis '{name}' needs at least {needs} networks, and this sampler has 1: "
                "leave it out"
            )
        capsys.readouterr()
        mnist.run(config, folder, analyses=["all"], settings=ALONE)
        assert capsys.readouterr().out.count("left out: the analysis") == 4

    def test_smaller_numbers_where_the_published_ones_take_too_long(self):
        assert Settings().resolved(None, 500).ensembles == 20
        many = Settings().resolved(None, 10_000)
        assert many.ensembles * many.num_networks * 10_000 <= _subject._RUNS
        assert many.ensembles >= 2
        assert Settings(ensembles=20).resolved(None, 10_000).ensembles == 20
        finite = Settings(num_networks=10).resolved(10, 500)
        assert (finite.ensembles, finite.pairs, finite.scatter_networks) == (1, 5, 10)
        for more in (Settings(num_networks=11), Settings(num_networks=10, ensembles=2)):
            with pytest.raises(_run.UsageError, match="this sampler has 10 in all"):
                more.resolved(10, 500)

    def test_nothing_to_attack_ends_no_run(
        self, finished, tmp_path, monkeypatch, quick_pictures, capsys
    ):
        def success(*_, **__):
            raise NothingToAttackError("none of the 32 images is classified rightly")

        monkeypatch.setattr(_analyses, "adversarial_success", success)
        folder = shutil.copytree(finished, tmp_path / "run")
        metrics = mnist.run(TINY, folder, analyses=["adversarial"], settings=SMALL)
        assert metrics["analyses"]["adversarial"]["attacked"] == 0
        assert "no attacks: none of the 32 images" in capsys.readouterr().out
        assert "classified rightly" in (folder / "report.html").read_text()

    def test_a_target_of_another_kind(self):
        """Analyses know no target: a dense one without a scale symmetry goes through all."""
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(6, activation="tanh"),
                keras.layers.Dense(10),
            ]
        )
        sampler = hn.DeepEnsemble(hn.Target(model, outputs="logits"), num_networks=8)
        settings = dataclasses.replace(SMALL, num_networks=8, ensembles=None).resolved(8, 80)
        subject = _subject.Subject(sampler, hn.data.load("mnist_5k"), settings)
        for name, analysis in _analyses.ANALYSES.items():
            result = analysis.run(subject)
            assert bool(result.drawings) != (name == "filter_diversity"), name
        pictures = _analyses.filters(subject).drawings["filters"].arrays
        assert {k: v.shape for k, v in pictures.items()} == {
            "layer_1": (4, 28, 28),
            "layer_2": (4, 6, 10),
        }


class TestKilled:
    """A kill in the middle: the same command again comes to the same end."""

    @pytest.fixture
    def killed(self, monkeypatch):
        """Kills the writing of a figure of this name, once."""

        def at(figure):
            real = _run.write_figure

            def write(folder, name, *rest):
                if name == figure:
                    monkeypatch.setattr(_run, "write_figure", real)
                    raise KeyboardInterrupt
                real(folder, name, *rest)

            monkeypatch.setattr(_run, "write_figure", write)

        return at

    @pytest.mark.slow
    def test_while_an_analysis_is_done_again(self, analysed, tmp_path, killed, quick_pictures):
        folder = shutil.copytree(analysed[0], tmp_path / "run")
        more = dataclasses.replace(SMALL, scatter_networks=9)
        killed("scatter_layer_2")
        with pytest.raises(KeyboardInterrupt):
            mnist.run(TINY, folder, analyses=["scatter"], settings=more)
        assert "scatter" not in json.loads((folder / "metrics.json").read_text())["analyses"]
        assert not (folder / "report.html").exists()
        again = mnist.run(TINY, folder, analyses=["scatter"], settings=SMALL)
        again["analyses"]["scatter"]["seconds"] = 0
        expected = dict(analysed[1]["analyses"]["scatter"], seconds=0)
        assert again["analyses"]["scatter"] == expected
        for name in FIGURES["scatter"]:
            assert len(arrays(folder, name)["coordinates"]) == 8
        assert (folder / "report.html").exists()

    def test_after_more_training_which_drops_what_was_found_before(
        self, analysed, tmp_path, killed, quick_pictures, as_bent
    ):
        folder = shutil.copytree(analysed[0], tmp_path / "run")
        longer = dataclasses.replace(TINY, steps=61)
        killed("accuracy_histogram")
        with pytest.raises(KeyboardInterrupt):
            mnist.run(longer, folder)
        assert not (folder / "metrics.json").exists()  # it would be of fewer steps
        with pytest.raises(_run.RunError, match="no finished run"):
            report.write([folder], tmp_path / "page.html")
        metrics = mnist.run(longer, folder)
        assert metrics["steps"] == 61
        assert (folder / "checkpoints" / "step-00000061").exists()
        assert set(metrics["analyses"]) == set(_experiment.BASIC)
        assert not (folder / "figures" / "paths.png").exists()
        assert set(times(folder)) >= {"accuracy_histogram.png", "filters.png"}
        with pytest.raises(_run.RunError, match="goes to 61 steps, not 60"):
            mnist.run(TINY, folder)

    def test_a_run_that_was_continued_and_stopped_is_not_analysed(self, finished, tmp_path):
        folder = shutil.copytree(finished, tmp_path / "run")
        _run.write_json(folder / "config.json", dataclasses.asdict(TINY) | {"steps": 3000})
        with pytest.raises(_run.RunError, match="has done 60 of its 3000 steps: finish it first"):
            TestCommand().main(run_dir=str(folder), analyses=["filters"])
        with pytest.raises(_run.RunError, match="has done 60 of its 3000 steps"):
            report.write([folder], tmp_path / "page.html")


def forget_flags():
    for module in (_experiment_flags, _flags, _analysis_flags):
        for flag in _flags.FLAGS.flags_by_module_dict()[module.__name__]:
            flag.unparse()


class TestCommand:
    @pytest.fixture(autouse=True)
    def as_given(self):
        """Flags of a test are not those of the next."""
        yield
        forget_flags()

    def main(self, **values):
        arguments = (
            f"--{name}={v if isinstance(v, str) else ','.join(v)}" for name, v in values.items()
        )
        _flags.FLAGS(["mnist", *arguments])
        mnist.main()

    def test_a_finished_run_is_analysed_by_its_folder_alone(self, finished, tmp_path, capsys):
        folder = shutil.copytree(finished, tmp_path / "run")
        self.main(run_dir=str(folder), analyses=["filter_diversity"])
        assert (folder / "figures" / "filter_diversity.pdf").exists()
        assert "analysis 1 of 1: filter_diversity" in capsys.readouterr().out

    def test_without_a_finished_run(self, finished, tmp_path):
        unfinished = shutil.copytree(finished, tmp_path / "run")
        (unfinished / "metrics.json").unlink()
        for folder in (unfinished, tmp_path / "nothing"):
            with pytest.raises(_run.RunError, match=r"no finished run in .*: train it first$"):
                self.main(run_dir=str(folder), analyses=["paths"])
        assert not (tmp_path / "nothing").exists()

    def test_analyses_that_are_none(self, finished):
        with pytest.raises(
            _run.UsageError, match="there is no analysis 'pathes': the analyses are"
        ):
            self.main(run_dir=str(finished), analyses=["paths", "pathes"])
        with pytest.raises(_run.UsageError, match="--analyses is empty"):
            self.main(run_dir=str(finished), analyses=[])

    def test_a_flag_that_has_no_part_in_the_method(self):
        _flags.FLAGS(["mnist", "--method=sgd", "--lam=5", "--dataset=mnist_5k"])
        with pytest.raises(_run.UsageError, match=r"--lam has no part in --method=sgd"):
            mnist.config_from_flags()

    @pytest.mark.parametrize(
        "flag", ["--ensembles=3", "--colour", "--scatter_networks=9", "--num_networks=9"]
    )
    def test_a_flag_that_has_no_part_in_the_analyses(self, flag):
        for analyses in ("--analyses=paths,adversarial", "--seed=0"):
            _flags.FLAGS(["mnist", analyses, flag])
            with pytest.raises(_run.UsageError, match="has no part in the analyses asked for"):
                _analysis_flags.settings(200, trains=False)
            forget_flags()

    def test_settings_come_from_flags(self):
        _flags.FLAGS(["mnist", "--analyses=all", "--ensembles=3", "--colour", "--num_networks=7"])
        settings = _analysis_flags.settings(200, trains=True)
        assert settings == Settings(num_networks=7, ensembles=3, colour=True)

    # The line of `mnist` for a user's error is also in test_reproduce.py, the error itself above.
    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param(["mnist", "--run_dir=empty", "--analyses=all"], marks=pytest.mark.slow),
            ["report", "empty", "--output=page.html"],
        ],
    )
    def test_bad_input_is_one_line(self, arguments, tmp_path):
        """As a user sees it: one line, an exit code, nothing written."""
        (tmp_path / "empty").mkdir()
        module, *flags = arguments
        done = subprocess.run(
            [sys.executable, "-m", f"reproduce.{module}", *flags],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 1, done.stderr
        line = rf"reproduce\.{module}: there is no finished run in empty.*\n"
        assert re.fullmatch(line, done.stderr)
        assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


class TestSideBySide:
    def test_several_runs_on_one_page(self, analysed, single, tmp_path):
        output = tmp_path / "pages" / "report.html"
        report.write([analysed[0], single[0]], output)
        text = output.read_text()
        header = re.search(r"<tr><th>.*?</tr>", text)[0]
        assert header == "<tr><th></th><th>analysed</th><th>single</th><th>published</th></tr>"
        row = re.search(r"<tr><td>trainable parameters</td>.*?</tr>", text)[0]
        cells = re.findall(r'<td class="n">(.*?)</td>', row)
        assert cells == ["20,018", "20,018", "633,640"]
        several = ("ensembles", "scatter", "paths", "filter_diversity")
        pictures = 2 + sum(len(FIGURES[name]) * (1 if name in several else 2) for name in FIGURES)
        assert text.count("data:image/png;base64,") == pictures  # and of each run its curves
        of_one = 1 + sum(len(FIGURES[name]) for name in FIGURES if name not in several)
        assert text.count("<figcaption>single</figcaption>") == of_one

    def test_what_cannot_be_set_side_by_side(self, analysed, tmp_path):
        folder, _ = analysed
        cases = {
            "name the folders": [],
            "no finished run in": [folder, tmp_path],
            "is named twice": [folder, folder],
        }
        for message, folders in cases.items():
            with pytest.raises(_run.RunError, match=message):
                report.write(folders, tmp_path / "page.html")
        toy = tmp_path / "toy"
        toy.mkdir()
        (toy / "metrics.json").write_text('{"experiment": "toy", "steps": 1}')
        with pytest.raises(_run.RunError, match=r"not a run of reproduce\.mnist"):
            report.write([toy], tmp_path / "page.html")
        for damaged in ("{", "[]", "{}"):
            (toy / "metrics.json").write_text(damaged)
            with pytest.raises(_run.RunError, match="damaged"):
                report.write([toy], tmp_path / "page.html")
        (toy / "metrics.json").write_text('{"experiment": "mnist", "steps": 60}')
        shutil.copy(folder / "config.json", toy)
        with pytest.raises(_run.RunError, match="damaged: it lacks"):
            report.write([toy], tmp_path / "page.html")
        with pytest.raises(_run.RunError, match="cannot be written"):
            report.write([folder], folder / "metrics.json" / "page.html")
        assert not (tmp_path / "page.html").exists()

    def test_folders_of_the_same_name_go_by_their_paths(self, analysed, tmp_path):
        twin = shutil.copytree(analysed[0], tmp_path / "analysed")
        report.write([analysed[0], twin], tmp_path / "page.html")
        assert f"<th>{twin}</th>" in (tmp_path / "page.html").read_text()


def test_names_are_in_the_order_of_the_experiment():
    assert _perform.names_of(["paths", "accuracies"]) == ["accuracies", "paths"]
    assert _perform.names_of(["all"]) == list(FIGURES)
    assert _perform.names_of([]) == []
