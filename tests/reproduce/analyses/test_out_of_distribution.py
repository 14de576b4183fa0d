"""Detection of images that are out of distribution."""

import shutil

import numpy as np
import pytest
from analysed_runs import SMALL, TINY, arrays, check_figure, check_page, sampler_of
from small_experiments import tiny

import hypernet_tf as hn
from hypernet_tf.metrics import SCORES, ood_metrics
from reproduce.analyses import ANALYSES
from reproduce.analyses.out_of_distribution import ood_names
from reproduce.runs.folder import UsageError
from reproduce.studies import experiment

pytestmark = pytest.mark.usefixtures("few_digits")

DRAWN = [key for key, score in SCORES.items() if score.is_drawn]


@pytest.fixture(scope="module")
def analysed(analyse):
    # Figures of the scores differ in numbers and titles only: those of one score are drawn.
    not_drawn = {f"ood_{kind}{score}" for score in DRAWN[1:] for kind in ("", "roc_")}
    return analyse("out_of_distribution", not_drawn=not_drawn)


def test_the_detection_is_that_of_the_scores_of_the_ensemble(analysed):
    folder, metrics = analysed
    sets = metrics["analyses"]["out_of_distribution"]["sets"]
    assert {name: values["num_images"] for name, values in sets.items()} == {
        "glyphs": 80,
        "noise": 1_000,
    }
    ensemble = sampler_of(folder).sample(3, seed=1)
    id_scores, ood_scores = (
        ensemble.uncertainty(hn.data.load(name).test.x) for name in ("mnist_5k", "glyphs")
    )
    for score in SCORES:
        expected = ood_metrics(getattr(id_scores, score), getattr(ood_scores, score))
        measured = sets["glyphs"][score]
        assert measured["auroc"] == pytest.approx(expected.auroc)
        if score not in DRAWN:
            continue
        curve = arrays(folder, f"ood_roc_{score}")
        area = np.trapezoid(curve["glyphs, y"], curve["glyphs, x"])
        assert measured["auroc"] == pytest.approx(area)
        np.testing.assert_allclose(
            arrays(folder, f"ood_{score}")["glyphs"], getattr(ood_scores, score), rtol=1e-4
        )


def test_one_network_on_fewer_images(analyse):
    """The images are the first ones, and one network has no scores of disagreement."""
    settings = {"num_networks": 1, "ood": ["glyphs", "noise"], "ood_images": 30}
    folder, metrics = analyse("out_of_distribution", not_drawn=None, **settings)
    numbers = metrics["analyses"]["out_of_distribution"]
    assert numbers["num_images"] == 30
    assert {name: values["num_images"] for name, values in numbers["sets"].items()} == {
        "glyphs": 30,
        "noise": 30,
    }
    network = sampler_of(folder).sample(1, seed=1)
    scores = (
        network.uncertainty(hn.data.load(name).test.x[:30]).entropy
        for name in ("mnist_5k", "glyphs")
    )
    expected = ood_metrics(*scores)
    assert numbers["sets"]["glyphs"]["entropy"]["auroc"] == pytest.approx(expected.auroc)
    measured = {*numbers["sets"]["noise"]} & {*SCORES}
    assert measured == {"entropy", "expected_entropy", "least_confidence", "energy"}


@pytest.mark.parametrize(
    ("names", "dataset", "channels", "words"),
    [
        (["letters"], "cifar10", 3, "no data set 'letters': --ood takes mnist, mnist_5k"),
        (["cifar10"], "cifar10", 3, "is in distribution for networks trained on cifar10"),
        (["mnist"], "mnist_5k", 1, "is in distribution for networks trained on mnist_5k"),
        (
            ["cifar10"],
            "mnist_5k",
            1,
            "has images of 32 x 32 x 3, and the networks take 28 x 28 x 1",
        ),
        (["cifar10_jpeg"], "cifar10:0-4", 3, "is in distribution for networks trained on cifar10"),
        (["mnist:4-5"], "mnist_5k:0-4", 1, "is in distribution for networks trained on mnist_5k"),
        (["mnist"], "mnist:5000", 1, "is in distribution for networks trained on mnist:5000"),
        (["mnist:5000"], "cifar10", 3, "--ood=mnist:5000 names a number of training images"),
        (["mnist:5-12"], "cifar10", 3, "Unknown classes '5-12' of mnist"),
        (["noise:3"], "cifar10", 3, "Unknown data set 'noise'"),
        (
            ["cifar10:5-9"],
            "mnist_5k",
            1,
            "has images of 32 x 32 x 3, and the networks take 28 x 28 x 1",
        ),
        (["mnist:0-1", "mnist:1", "0"], "cifar10", 3, "up to 5 different data sets"),
        (["noise", "noise"], "cifar10", 3, "up to 5 different data sets"),
        (
            ["mnist", "mnist_5k", "fashion_mnist", "notmnist", "glyphs", "noise"],
            *("cifar10", 3, "up to 5 different data sets"),
        ),
    ],
)
def test_data_sets_that_do_not_fit_are_one_line(names, dataset, channels, words):
    with pytest.raises(UsageError, match=words) as error:
        ood_names(names, dataset, (28, 28, 1) if channels == 1 else (32, 32, 3))
    assert "\n" not in str(error.value)


def test_other_classes_are_out_of_distribution():
    rest = ["fashion_mnist", "notmnist", "glyphs", "noise"]
    assert ood_names([], "mnist_5k:0-4", (28, 28, 1)) == ["mnist_5k:5-9", *rest]
    assert ood_names([], "mnist_5k:1000", (28, 28, 1)) == rest
    given = ["mnist:5", "6", "7", "9", "noise", "glyphs:0", "3-4"]  # a flag divided at commas
    assert ood_names(given, "mnist:0-4", (28, 28, 1)) == ["mnist:5-7,9", "noise", "glyphs:0,3-4"]


def test_the_default_ones_of_every_data_set_fit_it():
    for name in hn.data.names_for((32, 32, 3))[1:]:
        option = hn.data.DATASETS[name]
        names = ood_names([], name, option.image_shape)
        assert names == list(option.ood) == ood_names(names, name, option.image_shape)


def test_they_are_checked_before_anything_is_trained(tmp_path):
    settings = SMALL | {"ood": ["cats"]}
    with pytest.raises(UsageError, match="no data set 'cats'"):
        experiment.run(TINY, tmp_path / "run", analyses=["out_of_distribution"], settings=settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("eager_fits")
def test_a_default_data_set_that_is_not_available_is_left_out(
    bent_run, tmp_path, monkeypatch, quick_pictures, capsys
):
    real = hn.data.load

    def load(name, data_dir=None):
        if name in ("fashion_mnist", "notmnist"):
            raise hn.data.DataError(f"{name} is not here")
        return real(name, data_dir)

    monkeypatch.setattr(hn.data, "load", load)
    folder = shutil.copytree(bent_run, tmp_path / "run")
    default, named = (SMALL | {"ood": names} for names in ([], ["fashion_mnist"]))
    metrics = experiment.run(TINY, folder, analyses=["out_of_distribution"], settings=default)
    lines = capsys.readouterr().out.splitlines()
    assert {"left out: fashion_mnist is not here", "left out: notmnist is not here"} <= set(lines)
    entry = metrics["analyses"]["out_of_distribution"]
    assert set(entry["sets"]) == {"glyphs", "noise"}
    assert entry["left_out"] == ["fashion_mnist", "notmnist"]
    with pytest.raises(hn.data.DataError, match="fashion_mnist is not here"):
        experiment.run(TINY, folder, analyses=["out_of_distribution"], settings=named)


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["out_of_distribution"]
    assert entry["figures"] == [f"ood_{kind}{score}" for score in DRAWN for kind in ("", "roc_")]
    for name in entry["figures"][:2]:
        check_figure(folder, name)
    assert all(arrays(folder, name) for name in entry["figures"])
    values = check_page(folder, entry, ANALYSES["out_of_distribution"])
    assert len(values) == 2 * (2 + 7 * 3) + 1
    assert values["ood_glyphs_chance"] == pytest.approx(80 / (80 + entry["num_images"]))
    assert values["ood_num_networks"] == 3
    assert values["ood_glyphs_num_images"] == 80
    assert values["ood_noise_entropy_auroc"] == entry["sets"]["noise"]["entropy"]["auroc"]


@pytest.mark.slow
def test_networks_of_some_classes_detect_the_other_classes(tmp_path, quick_pictures):
    """Trained on five digits; its outputs and test images are of these five alone."""
    config = tiny("deep_ensemble", num_networks=2, networks_per_step=2, dataset="mnist_5k:0-4")
    settings = {"num_networks": 2, "ood": ["mnist_5k:5-9"]}
    folder = tmp_path / "run"
    metrics = experiment.run(config, folder, analyses=["out_of_distribution"], settings=settings)
    assert sampler_of(folder).target.classes == 5
    sets = metrics["analyses"]["out_of_distribution"]["sets"]
    assert list(sets) == ["mnist_5k:5-9"]
    detected = sets["mnist_5k:5-9"]
    assert detected["num_images"] == 80
    assert {0 <= detected[score]["auroc"] <= 1 for score in SCORES} == {True}
    scores = arrays(folder, "ood_entropy")
    assert set(scores) == {"in distribution", "mnist_5k:5-9"}
    assert max(values.max() for values in scores.values()) <= np.log(5) + 1e-6
    assert "mnist_5k, classes 5-9 by entropy" in (folder / "report.html").read_text()
