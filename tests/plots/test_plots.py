"""Figures: their size, and that they draw the given arrays."""

import io
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hypernet_tf import plots

CURVES = {
    name: (np.array([0.0, 0.2, 1.0]), np.array([0.0, height, 1.0]))
    for name, height in (("entropy", 0.9), ("variance", 0.7), ("KL", 0.5), ("JS", 0.3))
}


def reliability():
    accuracy = np.array([np.nan, 0.5, 0.7, np.nan, 1.0])
    confidence = np.array([np.nan, 0.3, 0.5, np.nan, 0.9])
    share = np.array([0, 0.1, 0.3, 0, 0.6])
    return plots.reliability_diagram(confidence, accuracy, share, np.linspace(0, 1, 6))


def histograms():
    rng = np.random.default_rng(0)
    ood_scores = {"glyphs": rng.normal(2, 1, 500), "noise": rng.normal(3, 1, 50)}
    return plots.score_distributions(rng.normal(size=1_000), ood_scores, "entropy (nats)")


def roc():
    return plots.roc_curves({name: (*curve, 0.9) for name, curve in CURVES.items()})


def risk():
    return plots.risk_coverage(CURVES)


GRID = np.linspace(-6, 6, 30)


def predictions():
    offsets = np.arange(4)[:, None]
    return plots.predictions(
        names=["reference", "one", "two", "three"],
        grid=GRID,
        truth=GRID**3,
        x=np.array([-4.0, 1.0]),
        y=np.array([-60.0, 2.0]),
        mean=GRID + offsets,
        std=np.abs(GRID) + offsets,
        networks=np.stack([[GRID + i, GRID - i] for i in range(4)]),
        columns=3,
        limit=250.0,
    )


LAM = np.array([1e1, 1e2, 1e3, 1.23e3, 2.31e3, 1.19e4, 1e4, 1.23e4, 1e5])
ENTROPY = np.array([900.0, 850, 700, 690, 680, 396, 395, 400, 390])
ACCURACY = np.array([20, 60, 94, 95, 95.1, 97, 96.9, 97.1, 97.2])


def frontier():
    panel = {"title": "accuracy", "unit": "accuracy (%)", "log": False, "values": ACCURACY}
    likelihood = {"title": "NLL", "unit": "nats", "log": True, "values": 1 - ACCURACY / 100}
    return plots.frontier(LAM, ENTROPY, [panel, panel, likelihood], best=8)


def weights():
    rng = np.random.default_rng(0)
    few, many = {"bias[2]": np.full(9, 0.5)}, {f"kernel[{i}]": rng.normal(size=9) for i in range(3)}
    return plots.weight_histograms({"layer 1": many, "layer 2": few})


def attacks():
    sizes, rise = np.array([0.01, 0.1, 0.3]), np.array([10.0, 50, 90])
    return plots.attack_curves(sizes, {"one network": (rise, rise), "the mean": (rise, rise)})


def learning():
    passes, rise = np.array([1e3, 1e5, 3e6]), np.array([10.0, 60, 75])
    trainings = {f"hypernetwork-{number}": (passes, rise + number) for number in range(9)}
    votes = {name: trainings[name] for name in list(trainings)[1:]}
    return plots.learning_curves({"Mean": trainings, "Vote": votes}, "accuracy (%)")


DRAWN = (reliability, histograms, roc, risk, frontier, attacks, learning)


@pytest.mark.parametrize("draw", DRAWN)
def test_figures_fit_a_page_and_can_be_read(draw):
    figure = draw()
    file = io.BytesIO()
    figure.savefig(file)  # warns, which is an error here, where text does not fit
    assert file.getvalue().startswith(b"\x89PNG")
    assert figure.get_size_inches()[0] == 7
    for axes in figure.axes:
        legend = axes.get_legend()
        texts = [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels()]
        texts += [] if legend is None else legend.get_texts()
        assert min(text.get_fontsize() for text in texts) >= 8
    assert figure.axes[0].get_ylabel().endswith("(%)")


def test_reliability_leaves_out_empty_bins_and_draws_percent():
    above, below = reliability().axes
    line = above.get_lines()[1]
    np.testing.assert_allclose(line.get_xydata(), [[30, 50], [50, 70], [90, 100]])
    np.testing.assert_allclose([bar.get_height() for bar in below.patches], [0, 10, 30, 0, 60])
    np.testing.assert_allclose([bar.get_x() for bar in below.patches], [0, 20, 40, 60, 80])


def test_histograms_of_sets_of_any_size_add_up_to_100_percent():
    axes = histograms().axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["in distribution (1000)", "glyphs (500)", "noise (50)"]
    for outline in axes.patches:
        x, y = outline.get_xy()[:-1].T
        steps = np.unique(np.stack([x, y], 1), axis=0)
        assert len(steps) > 10
        heights = y[1:-1:2][:40]
        assert heights.sum() == pytest.approx(100)


def test_distribution_functions_are_those_of_the_scores():
    scores = {"glyphs": np.array([3.0, 1.0, 2.0, 2.0])}
    below = plots.score_distributions(np.array([0.0, 4.0]), scores, "entropy (nats)").axes[1]
    inside, outside = (line.get_xydata() for line in below.get_lines())
    np.testing.assert_allclose(inside, [[0, 0], [0, 0.5], [4, 1]])
    np.testing.assert_allclose(outside[1:], [[1, 0.25], [2, 0.5], [2, 0.75], [3, 1]])


def test_histograms_of_weights_have_a_row_for_each_layer():
    figure = weights()
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    names = [axes.get_xlabel() for axes in shown]
    assert names == ["kernel[0]", "kernel[1]", "kernel[2]", "bias[2]"]
    assert min(axes.xaxis.label.get_fontsize() for axes in shown) >= 8


def test_the_margins_of_a_confusion_hold_the_names():
    """Margins are set by hand; shades are shares of a class, numbers count examples."""
    counts = np.array([[90, 10, 0], [0, 30, 10], [0, 0, 0]])
    figure = plots.confusion(counts, ["WWWWWWWWWWWWWWWW", "trouser", "an ankle boot"], "title")
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    for part in (axes.xaxis.label, axes.yaxis.label, axes.title, *axes.get_yticklabels()):
        box = part.get_window_extent()
        assert box.x0 >= 0 <= box.y0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[0.9, 0.1, 0], [0, 0.75, 0.25], [0, 0, 0]]
    )
    assert [text.get_text() for text in axes.texts] == ["90", "10", "30", "10"]


def test_a_table_of_filters_has_a_column_for_each_network():
    pictures = np.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4) - 40.0  # 2 networks, 3 filters
    figure = plots.filter_table(pictures, "title", "neuron")
    (axes,) = figure.axes
    (image,) = axes.images
    drawn = np.ma.filled(image.get_array(), np.nan)
    assert drawn.shape == (3 * 2 + 2, 2 * 4 + 1)
    np.testing.assert_array_equal(drawn[3:5, 5:9], pictures[1, 1])
    assert np.isnan(drawn).sum() == drawn.size - pictures.size
    assert (image.norm.vmin, image.norm.vmax) == (-40, 40)
    assert axes.get_title() == "title\nblack -40, white 40"
    assert axes.get_ylabel() == "neuron"


def test_a_grid_shows_the_same_filter_of_each_network_at_its_place():
    pictures = np.arange(4 * 2 * 3).reshape(4, 2, 3) - 30.0
    figure = plots.filter_grids({"first": pictures})
    images = figure.axes[0].images
    for image, picture in zip(images, pictures, strict=True):
        np.testing.assert_array_equal(image.get_array(), picture)
        assert (image.norm.vmin, image.norm.vmax) == (-30, 30)
    left, right, bottom, top = np.transpose([image.get_extent() for image in images])
    np.testing.assert_allclose(right - left, 3)
    np.testing.assert_allclose(bottom - top, 2)
    assert (right[[0, 2]] < left[[1, 3]]).all()  # side by side
    assert (bottom[[0, 1]] < top[[2, 3]]).all()  # one below the other
    assert figure.axes[0].get_title() == "first"


@pytest.mark.parametrize("draw", (roc, risk))
def test_curves_differ_by_more_than_colour(draw):
    lines = [line for line in draw().axes[0].get_lines() if line.get_marker() != "None"]
    assert len(lines) == 4
    assert len({line.get_linestyle() for line in lines}) == 4
    assert len({line.get_marker() for line in lines}) == 4
    for line, (x, y) in zip(lines, CURVES.values(), strict=True):
        np.testing.assert_allclose(line.get_xydata(), 100 * np.stack([x, y], 1))


def test_learning_curves_name_each_training_once():
    figure = learning()
    assert len(figure.legends[0].get_texts()) == 9
    mean, vote = figure.axes
    assert [len(axes.get_lines()) for axes in (mean, vote)] == [9, 8]
    assert mean.get_lines()[1].get_color() == vote.get_lines()[0].get_color()
    assert len({(line.get_color(), line.get_marker()) for line in mean.get_lines()}) == 9


def test_each_lam_is_beside_its_mark_and_on_no_other():
    panel = {"title": "accuracy", "unit": "accuracy (%)", "log": False, "values": ACCURACY}
    plots.frontier(np.array([0.0, *LAM[1:]]), ENTROPY, [panel])
    figure = frontier()
    figure.draw_without_rendering()
    for axes, values in zip(figure.axes, (ACCURACY, ACCURACY, 1 - ACCURACY / 100), strict=True):
        texts = axes.texts
        assert [text.get_text() for text in texts] == (
            ["10¹", "10²", "10³", "1230", "2310", "11900", "10⁴", "12300", "10⁵"]
        )
        np.testing.assert_allclose([text.xy for text in texts], np.stack([ENTROPY, values], 1))
        # The box of the letters alone: the box of an annotation includes the line to its mark.
        boxes = [super(type(text), text).get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        for box in boxes:
            assert axes.get_window_extent().containsx(box.x0)
            assert axes.get_window_extent().containsx(box.x1)
            assert axes.get_window_extent().containsy(box.y0)
            assert axes.get_window_extent().containsy(box.y1)


def test_each_panel_of_predictions_shows_its_ensemble_on_shared_axes():
    figure = predictions()
    FigureCanvasAgg(figure).draw()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["reference", "one", "two", "three"]
    for index, axes in enumerate(shown):
        assert (axes.get_xlim(), axes.get_ylim()) == ((-6, 6), (-250, 250))
        single, other, mean, truth, points = (line.get_ydata() for line in axes.get_lines())
        np.testing.assert_allclose([single, other], [GRID + index, GRID - index])
        np.testing.assert_allclose(mean, GRID + index)
        np.testing.assert_allclose(truth, GRID**3)
        np.testing.assert_allclose(points, [-60, 2])
        two, one = (band.get_paths()[0].vertices for band in axes.collections)
        width = np.abs(GRID) + index
        for band, factor in ((one, 1), (two, 2)):
            assert band[:, 1].max() == pytest.approx((GRID + index + factor * width).max())
            assert band[:, 1].min() == pytest.approx((GRID + index - factor * width).min())
        texts = [axes.title, *axes.get_xticklabels(), *axes.get_yticklabels()]
        assert min(text.get_fontsize() for text in texts) >= 8
    # Panels without one below them carry the numbers of the shared axis.
    assert all(axes.get_xlabel() == "x" for axes in shown[1:])
    assert [axes.get_ylabel() for axes in shown] == ["y", "", "", "y"]


def test_networks_that_differ_by_rounding_alone_are_drawn():
    value = np.float32(1.7269447e-06)
    coordinates = np.full((8, 2), value)
    coordinates[0] = np.nextafter(value, np.float32(1))
    figure = plots.scatter_matrix(coordinates, np.array([0.6, 0.4]), "weights")
    FigureCanvasAgg(figure).draw()
    assert sum(patch.get_xy()[:, 1].max() for patch in figure.axes[0].patches) == 7


def test_examples_have_a_row_of_pictures_for_each_title():
    images = np.zeros((3, 4, 5, 1))
    figure = plots.examples({"first": (images, ["a", "b", "c"]), "none": (images[:0], [])})
    assert [part.get_suptitle() for part in figure.subfigs] == ["first", "none"]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 0, 0, 0]
    assert [axes.texts[0].get_text() for axes in figure.axes[:3]] == ["a", "b", "c"]
    figure.savefig(io.BytesIO())


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (0.01, 20.0), (0.01, 900.0), (0.5, 3e6)])
def test_ticks_of_a_logarithmic_panel_do_not_touch(low, high):
    values = np.geomspace(low, high, 14)
    panel = {"title": "NLL", "unit": "nats", "log": True}
    panels = [panel | {"series": {"all": (values, np.full(14, np.nan))}}] * 2
    trainings = {key: {"one": (1e6 * values, values)} for key in ("Mean", "Vote")}
    for figure in (
        plots.comparison([f"method {n}" for n in range(14)], panels),
        plots.learning_curves(trainings, "accuracy (%)"),
    ):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        axes = figure.axes[0]
        start, end = axes.get_xlim()
        labels = [
            label
            for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if start <= tick <= end and label.get_text()
        ]
        assert len(labels) >= 2
        boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
        for left, right in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)):
            assert left.x1 < right.x0


def test_a_confusion_of_small_weights_has_the_shades_of_shares():
    counts = np.array([[0.3, 0.1], [0.0, 0.0]])
    (axes,) = plots.confusion(counts, ["a", "b"], "").axes
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [text.get_text() for text in axes.texts] == ["0.3", "0.1"]


def test_equal_networks_have_no_share_of_the_variance():
    axes = plots.scatter_matrix(np.zeros((5, 2)), np.full(2, np.nan), "").axes
    assert [text for one in axes if (text := one.get_xlabel())] == ["1: none\n± 0", "2: none\n± 0"]


def test_a_dollar_in_the_name_of_a_class_is_no_formula():
    (axes,) = plots.confusion(np.eye(2), ["$0-$50", "$5_$10"], "").axes
    FigureCanvasAgg(axes.figure).draw()
    assert [text.get_text() for text in axes.get_yticklabels()] == [r"\$0-\$50", r"\$5_\$10"]


def test_scores_that_differ_by_rounding_alone_are_drawn():
    nearly = np.array([1.0, 1.0 + 2**-23], np.float32)
    above, _ = plots.score_distributions(nearly, {"other": nearly[:1]}, "entropy").axes
    assert above.get_xlim()[0] < 0.6 < 1.4 < above.get_xlim()[1]


def test_bars_of_accuracies_count_networks_and_marks_are_lines():
    accuracies, marks = np.array([90.0, 91.0, 91.0]), {"majority vote": 92.0}
    (axes,) = plots.accuracy_histogram(accuracies, marks, bin_width=1.0).axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [1, 2, 0])
    np.testing.assert_allclose([bar.get_x() for bar in axes.patches], [89.5, 90.5, 91.5])
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_xdata(), 92)
    assert line.get_label() == "majority vote: 92.00 %"


def test_each_ensemble_has_a_mark_in_the_column_of_its_kind():
    members, votes = np.array([90.0, 92.0]), np.array([95.0, 97.0])
    (axes,) = plots.ensembles(members, {"majority vote": votes}).axes
    first, second = (line.get_xydata() for line in axes.get_lines())
    np.testing.assert_allclose(first, [[-0.2, 90], [0.2, 92]])
    np.testing.assert_allclose(second, [[0.8, 95], [1.2, 97]])
    texts = [label.get_text() for label in axes.get_xticklabels()]
    assert texts == ["mean of the networks\n91.00 %", "majority vote\n96.00 %"]


def test_a_line_of_means_goes_through_the_ensembles_of_each_size():
    (axes,) = plots.ensemble_sizes({1: np.array([90.0, 92.0]), 4: np.array([95.0])}).axes
    ones, four, means = (line.get_xydata() for line in axes.get_lines())
    np.testing.assert_allclose(ones, [[1, 90], [1, 92]])
    np.testing.assert_allclose(four, [[4, 95]])
    np.testing.assert_allclose(means, [[1, 91], [4, 95]])


def test_paths_have_a_thin_line_each_and_their_mean():
    t = np.array([0.0, 0.5, 1.0])
    curved = np.array([[90.0, 88.0, 94.0], [92.0, 90.0, 96.0]])
    straight = np.array([[90.0, 10.0, 94.0], [92.0, 20.0, 96.0]])
    figure = plots.paths(t, {"direct": straight, "interpolated": curved})
    for axes, accuracies in zip(figure.axes, (straight, curved), strict=True):
        *single, mean = (line.get_xydata() for line in axes.get_lines())
        np.testing.assert_allclose(single, [np.stack([t, path], 1) for path in accuracies])
        np.testing.assert_allclose(mean, np.stack([t, accuracies.mean(0)], 1))


def test_success_is_drawn_against_the_size_of_the_attack():
    sizes, one, vote = np.array([0, 10, 20]), np.array([0.0, 50, 100]), np.array([5.0, 20, 40])
    (axes,) = plots.success_curves(sizes / 255, {"one network": one, "vote": vote}).axes
    for line, values in zip(axes.get_lines(), (one, vote), strict=True):
        np.testing.assert_allclose(line.get_xydata(), np.stack([sizes, values], 1))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["one network", "vote"]


def test_each_filter_is_a_point_of_next_weights_and_diversity():
    layers = {
        "layer 1": (np.array([0.1, 0.2]), np.array([0.3, 0.4])),
        "layer 2": (np.array([0.7, 0.5, 0.6]), np.array([1.0, 2.0, 3.0])),
    }
    figure = plots.filter_diversity(layers)
    for axes, (title, (diversity, weights)) in zip(figure.axes, layers.items(), strict=True):
        assert axes.get_title() == title
        (points,) = axes.collections
        drawn = np.asarray(points.get_offsets())
        np.testing.assert_allclose(drawn, np.stack([weights, diversity], 1))


def test_a_scatter_matrix_has_the_component_of_its_column_to_the_right():
    coordinates = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]])
    shares, values = np.array([0.7, 0.2]), np.array([90.0, 91.0, 95.0])
    figure = plots.scatter_matrix(coordinates, shares, "weights", values=values, label="%")
    _, above, below, last, *_ = figure.axes
    for axes, expected in ((above, coordinates[:, ::-1]), (below, coordinates)):
        (points,) = axes.collections
        np.testing.assert_allclose(np.asarray(points.get_offsets()), expected)
        np.testing.assert_allclose(np.asarray(points.get_array()), values)
    assert below.get_xlabel().startswith("1: 70.0 %\n± 2")
    assert last.get_xlabel().startswith("2: 20.0 %")
