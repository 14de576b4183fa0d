"""Analyses of runs, and runs side by side, as the commands perform them."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from absl.testing import flagsaver
from matplotlib import image

import hypernet_tf as hn
from reproduce import _analyses, _flags, _perform, _run, _subject, mnist, report
from reproduce._subject import Settings

TINY = mnist.Config(
    dataset="mnist_5k",
    steps=2,
    networks=5,
    networks_per_step=3,
    images_per_network=4,
    validate_every=2,
    checkpoint_every=2,
)
SMALL = Settings(
    networks=3,
    ensembles=2,
    scatter_networks=8,
    pairs=2,
    points=3,
    path_images=10,
    adversarial_images=30,
    adversarial_networks=3,
)
FIGURES = {
    "accuracies": ["accuracy_histogram"],
    "ensembles": ["ensembles"],
    "filters": ["filters"],
    "scatter": [
        "scatter_all_weights",
        "scatter_layer_1_conv2d",
        "scatter_layer_2_conv2d_1",
        "scatter_layer_3_dense",
        "scatter_layer_4_dense_1",
        "scatter_layer_1_conv2d_filter_1",
        "scatter_layer_2_conv2d_1_filter_1",
        "scatter_layer_3_dense_filter_1",
        "scatter_layer_4_dense_1_filter_1",
    ],
    "paths": ["paths"],
    "adversarial": ["adversarial"],
    "filter_diversity": ["filter_diversity"],
}


@pytest.fixture(scope="module", autouse=True)
def small_data():
    """Forty digits of each part, so that evaluation takes no time."""
    real = hn.data.load

    def load(name, data_dir=None):
        whole = real(name, data_dir)
        parts = {
            part: hn.data.Split(split.images[:40], split.labels[:40])
            for part in ("train", "validation", "test")
            for split in [getattr(whole, part)]
        }
        return dataclasses.replace(whole, **parts)

    patch = pytest.MonkeyPatch()
    patch.setattr(hn.data, "load", load)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "generated"
    mnist.run(TINY, folder)
    return folder


@pytest.fixture(scope="module")
def analysed(finished, tmp_path_factory):
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "analysed")
    checkpoint = folder / "checkpoints" / "step-00000002" / "model.keras"
    before = checkpoint.stat().st_mtime_ns
    metrics = mnist.run(TINY, folder, analyses=["all"], settings=SMALL)
    assert checkpoint.stat().st_mtime_ns == before  # nothing was trained
    return folder, metrics


@pytest.fixture(scope="module")
def single(tmp_path_factory):
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
    return folder, mnist.run(config, folder, analyses=["all"], settings=SMALL)


def times(folder):
    return {p.name: p.stat().st_mtime_ns for p in (folder / "figures").iterdir()}


class TestAnalyses:
    def test_every_analysis_is_tested(self):
        assert set(FIGURES) == set(_analyses.ANALYSES)

    def test_settings_say_what_an_analysis_depends_on(self):
        fields = {field.name for field in dataclasses.fields(Settings)}
        used = [name for analysis in _analyses.ANALYSES.values() for name in analysis.uses]
        assert set(used) == fields

    @pytest.mark.parametrize("name", FIGURES)
    def test_it_writes_its_figures_and_the_numbers_behind_them(self, analysed, name):
        folder, metrics = analysed
        found = metrics["analyses"][name]
        assert found["figures"] == FIGURES[name]
        assert found["settings"]["steps"] == 2
        assert found["seconds"] >= 0
        for figure in FIGURES[name]:
            path = folder / "figures" / figure
            picture = image.imread(path.with_suffix(".png"))
            height, width = picture.shape[:2]
            assert width <= 7 * 150  # half a page, at the figures' 150 dots per inch
            assert height <= 7.6 * 150
            assert picture[..., :3].std() > 0.02
            assert path.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"
            with np.load(path.with_suffix(".npz")) as arrays:
                assert all(np.isfinite(arrays[key]).all() for key in arrays.files)
                assert arrays.files

    def test_metrics_summarise_the_saved_numbers(self, analysed):
        folder, metrics = analysed
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        found = metrics["analyses"]

        def arrays(name):
            return np.load(folder / "figures" / f"{name}.npz")

        accuracies = arrays("accuracy_histogram")["accuracies"]
        assert accuracies.shape == (6,)
        np.testing.assert_allclose(found["accuracies"]["mean"], accuracies.mean())
        ensembles = arrays("ensembles")
        assert ensembles["members"].shape == (2, 3)
        vote = found["ensembles"]["majority_vote"]
        np.testing.assert_allclose(vote["mean"], ensembles["majority_vote"].mean())
        np.testing.assert_allclose(vote["std"], ensembles["majority_vote"].std(ddof=1))
        paths = arrays("paths")
        assert paths["direct"].shape == paths["interpolated"].shape == (2, 3)
        # Both kinds of path have the same ends.
        np.testing.assert_allclose(paths["direct"][:, ::2], paths["interpolated"][:, ::2])
        np.testing.assert_allclose(
            found["paths"]["direct"]["lowest_of_each_path"], paths["direct"].min(1).mean()
        )
        attack = arrays("adversarial")
        np.testing.assert_allclose(found["adversarial"]["network"], attack["network"])
        assert found["adversarial"]["epsilons"] == list(range(0, 60, 2))
        assert found["adversarial"]["network"][0] == 0
        assert 0 < found["adversarial"]["attacked"] <= found["adversarial"]["images"] == 30
        scatter = arrays("scatter_all_weights")
        assert scatter["coordinates"].shape == (8, 6)
        view = found["scatter"]["views"]["all weights"]
        assert view["weights"] == 20_018
        np.testing.assert_allclose(view["explained"], scatter["explained"])
        assert arrays("filters")["layer_3"].shape == (25, 7, 7)
        assert arrays("filter_diversity")["diversity_1"].shape == (32,)
        assert set(found["filter_diversity"]["layers"]) == {
            "layer 1 (conv2d)",
            "layer 2 (conv2d_1)",
            "layer 3 (dense)",
        }

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

    def test_what_is_done_is_not_done_again(self, analysed, tmp_path):
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

    def test_colour_on_request(self, finished, tmp_path):
        folder = shutil.copytree(finished, tmp_path / "run")
        settings = dataclasses.replace(SMALL, colour=True)
        mnist.run(TINY, folder, analyses=["scatter"], settings=settings)
        with np.load(folder / "figures" / "scatter_all_weights.npz") as arrays:
            assert arrays["accuracy_percent"].shape == (8,)

    def test_more_training_drops_what_was_found_before(self, analysed, tmp_path):
        folder = shutil.copytree(analysed[0], tmp_path / "run")
        metrics = mnist.run(dataclasses.replace(TINY, steps=3), folder)
        assert set(metrics["analyses"]) == set(mnist.BASIC)
        assert not (folder / "figures" / "paths.png").exists()

    def test_one_network_has_the_analyses_of_one_network(self, single):
        folder, metrics = single
        assert metrics["method"] == "sgd"
        assert metrics["parameters"] == metrics["target_weights"] == 20_018
        assert metrics["networks"]["count"] == 1
        assert metrics["networks"]["accuracy_std"] is None
        assert metrics["diversity"] == {"entropy": None, "disagreement": None}
        assert set(metrics["analyses"]) == {"accuracies", "filters", "adversarial"}
        assert "ensemble" not in metrics["analyses"]["adversarial"]
        assert "NaN" not in (folder / "metrics.json").read_text()

    def test_an_analysis_of_more_networks_than_there_are(self, single, capsys):
        folder, _ = single
        config = _run.read_config(folder, mnist.Config)
        for name, needs in (("scatter", 7), ("paths", 2), ("ensembles", 2)):
            with pytest.raises(_run.RunError) as error:
                mnist.run(config, folder, analyses=[name])
            assert str(error.value) == (
                f"the analysis '{name}' needs at least {needs} networks, and this sampler has 1: "
                "leave it out"
            )
        mnist.run(config, folder, analyses=["all"], settings=SMALL)
        assert capsys.readouterr().out.count("left out: the analysis") == 4

    def test_smaller_numbers_where_the_published_ones_take_too_long(self):
        class Sampler:
            size = None

        assert Settings().resolved(Sampler, 500).ensembles == 20
        many = Settings().resolved(Sampler, 10_000)
        assert many.ensembles * many.networks * 10_000 <= _subject._RUNS
        assert many.ensembles >= 2
        assert Settings(ensembles=20).resolved(Sampler, 10_000).ensembles == 20
        Sampler.size = 10
        finite = Settings().resolved(Sampler, 500)
        assert (finite.networks, finite.ensembles, finite.pairs) == (10, 1, 5)


class TestCommand:
    def main(self, **values):
        if not _flags.FLAGS.is_parsed():
            _flags.FLAGS(["mnist"])
        with flagsaver.flagsaver(**values):
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

    def test_an_unknown_analysis(self, finished):
        with pytest.raises(_run.RunError, match="there is no analysis 'pathes': the analyses are"):
            self.main(run_dir=str(finished), analyses=["paths", "pathes"])

    def test_a_flag_that_has_no_part_in_the_method(self):
        flags = _flags.FLAGS
        if not flags.is_parsed():
            flags(["mnist"])
        with flagsaver.flagsaver():
            flags(["mnist", "--method=sgd", "--lam=5", "--dataset=mnist_5k"])
            with pytest.raises(_run.RunError, match=r"--lam has no part in --method=sgd"):
                mnist.config_from_flags()

    @pytest.mark.parametrize("flag", ["--ensembles=3", "--colour", "--scatter_networks=9"])
    def test_a_flag_that_has_no_part_in_the_analyses(self, flag):
        flags = _flags.FLAGS
        with flagsaver.flagsaver():
            flags(["mnist", "--analyses=paths,adversarial", flag])
            with pytest.raises(_run.RunError, match="has no part in the analyses asked for"):
                mnist.settings_from_flags(TINY)
        for value in flags.flags_by_module_dict()[mnist.__name__]:
            value.unparse()

    def test_settings_come_from_flags(self):
        flags = _flags.FLAGS
        with flagsaver.flagsaver():
            flags(["mnist", "--analyses=all", "--ensembles=3", "--colour", "--networks=7"])
            settings = mnist.settings_from_flags(TINY)
        for module in (mnist, _flags):
            for value in flags.flags_by_module_dict()[module.__name__]:
                value.unparse()
        assert settings == Settings(networks=7, ensembles=3, colour=True)


class TestSideBySide:
    def test_several_runs_on_one_page(self, analysed, single, tmp_path):
        output = tmp_path / "pages" / "report.html"
        report.write([analysed[0], single[0]], output)
        text = output.read_text()
        header = re.search(r"<tr><th>.*?</tr>", text)[0]
        assert header == "<tr><th></th><th>analysed</th><th>single</th><th>published</th></tr>"
        row = re.search(r"<tr><td>trainable parameters</td>.*?</tr>", text)[0]
        cells = re.findall(r'<td class="n">(.*?)</td>', row)
        assert cells == ["633,640", "20,018", "633,640"]
        shared = 2 * 4  # curves, accuracies, filters, attacks; the others are of one run only
        assert text.count("data:image/png;base64,") == shared + sum(map(len, FIGURES.values())) - 3
        assert text.count("<figcaption>single</figcaption>") == 4

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
        (toy / "metrics.json").write_text('{"experiment": "toy"}')
        with pytest.raises(_run.RunError, match=r"not a run of reproduce\.mnist"):
            report.write([toy], tmp_path / "page.html")
        (toy / "metrics.json").write_text("{")
        with pytest.raises(_run.RunError, match="damaged"):
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
