"""Attacks against gradients of ordinary Keras models, network by network, image by image."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from random_networks import random_images, random_networks, small_target

import hypernet_tf as hn
from hypernet_tf.analysis import (
    NothingToAttackError,
    adversarial_success,
    attack_detection,
    fast_gradient_method,
    projected_gradient,
)
from hypernet_tf.analysis.attacks import EPSILONS


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_images_move_by_the_sign_of_the_gradient_of_the_class_probability(outputs, temperature):
    target = small_target(outputs)
    ensemble, (x, _) = random_networks(3, 4, target), random_images(3)
    classes, sizes = np.array([0, 2, 1]), np.array([0.0, 0.02, 0.1], "float32")
    moved = fast_gradient_method(
        target, ensemble.weights, tf.constant(x), classes, sizes, temperature=temperature
    )
    for index, (image, chosen) in enumerate(zip(x, classes, strict=True)):
        model = ensemble[index].to_keras()
        point = tf.constant(image[None])
        with tf.GradientTape() as tape:
            tape.watch(point)
            answer = model(point)
            log_p = tf.nn.log_softmax(answer) if outputs == "logits" else tf.math.log(answer)
            p = tf.nn.softmax(log_p / temperature)
            likely = p[0, chosen]
        sign = np.sign(tape.gradient(likely, point)[0])
        for size, result in zip(sizes, moved[index], strict=True):
            np.testing.assert_allclose(result, image + size * sign, atol=1e-6)


def test_the_chosen_class_becomes_more_probable():
    target = small_target()
    ensemble, (x, _) = random_networks(8, 4, target), random_images(8)
    classes = np.arange(8) % 3
    sizes = np.array([0.0, 0.005], "float32")
    moved = fast_gradient_method(target, ensemble.weights, tf.constant(x), classes, sizes)
    p = tf.nn.softmax(target(ensemble.weights, moved)).numpy()  # [N, E, C]
    chosen = np.take_along_axis(p, classes[:, None, None], -1)[..., 0]
    assert (chosen[:, 1] >= chosen[:, 0] - 1e-6).all()
    assert (chosen[:, 1] > chosen[:, 0]).mean() > 0.5


def test_moved_images_are_clipped():
    target = small_target()
    ensemble, (x, _) = random_networks(4, 4, target), random_images(4)
    given = target, ensemble.weights, tf.constant(x), np.zeros(4, int), np.array([0.3], "float32")
    free, clipped = fast_gradient_method(*given), fast_gradient_method(*given, clip=(0.2, 0.8))
    assert np.min(free) < 0 < 1 < np.max(free)
    np.testing.assert_allclose(clipped, np.clip(free, 0.2, 0.8))


def test_success_equals_a_loop_over_ordinary_keras_models():
    target, (x, y) = small_target(), random_images(24)
    drawn = {}

    def sample(count, seed):
        drawn.setdefault(seed, (count, random_networks(count, seed, target)))
        assert drawn[seed][0] == count
        return drawn[seed][1]

    sizes = np.array([0, 10, 60]) / 255
    success = adversarial_success(
        sample, x, y, num_networks=7, epsilons=sizes, batch_size=10, seed=50, clip=(0.0, 1.0)
    )
    # The same draws, network by network, image by image.
    wrong = (y + np.random.default_rng(50).integers(1, 3, 24)) % 3
    assert (wrong != y).all()
    rows, seed = [], 51
    for begin in range(0, 24, 10):
        attackers = drawn[seed][1]
        seed += 1
        for network, index in enumerate(range(begin, min(begin + 10, 24))):
            model, image = attackers[network].to_keras(), tf.constant(x[index : index + 1])
            if model(image).numpy().argmax() != y[index]:
                continue
            with tf.GradientTape() as tape:
                tape.watch(image)
                likely = tf.nn.softmax(model(image))[0, wrong[index]]
            sign = np.sign(tape.gradient(likely, image))
            voters = [member.to_keras() for member in drawn[seed][1]]
            seed += 1
            for size in sizes:
                shown = np.clip(x[index] + size * sign, 0, 1).astype("float32")
                prediction = model(shown).numpy().argmax()
                votes = np.bincount([v(shown).numpy().argmax() for v in voters], minlength=3)
                answers = prediction, votes.argmax()
                rows.append([a != y[index] for a in answers] + [a == wrong[index] for a in answers])
    rows = np.array(rows).reshape(-1, 3, 4)
    assert success.images == 24
    assert success.attacked == len(rows) > 3
    np.testing.assert_allclose(success.network, rows[..., 0].mean(0))
    np.testing.assert_allclose(success.ensemble, rows[..., 1].mean(0))
    np.testing.assert_allclose(success.network_reached, rows[..., 2].mean(0))
    np.testing.assert_allclose(success.ensemble_reached, rows[..., 3].mean(0))
    assert success.network[0] == 0
    assert success.network[-1] > 0.2
    assert success.ensemble[0] > 0  # other networks may be wrong without an attack


def test_one_network_without_an_ensemble():
    target, (x, y) = small_target(), random_images(12)
    success = adversarial_success(
        lambda count, seed: random_networks(count, 3, target), x, y, num_networks=0, batch_size=1
    )
    assert success.ensemble is None
    assert success.network.shape == EPSILONS.shape == (30,)
    assert EPSILONS[-1] == 58 / 255


def test_mistakes_raise():
    x, y = random_images(4)
    with pytest.raises(ValueError, match=r"^an attack needs classes"):
        adversarial_success(
            lambda count, seed: random_networks(count, seed, small_target("values")), x, y
        )
    constant = small_target()
    zeros = constant.unflatten(tf.zeros([1, constant.weight_count]))
    with pytest.raises(
        NothingToAttackError, match=r"^None of the 4 images is classified correctly: train"
    ):
        adversarial_success(lambda *_: hn.Ensemble(constant, zeros), x, np.full(4, 2), batch_size=1)


class TestProjectedGradient:
    @pytest.fixture
    def ensemble(self):
        return random_networks(3, 4, small_target())

    def test_one_step_is_the_fast_gradient_method(self, ensemble):
        x, y = random_images(6)
        moved = projected_gradient(ensemble[0], x, y, 0.03, steps=1, random_start=False, clip=None)
        for index in range(6):
            alone = fast_gradient_method(
                ensemble.target,
                ensemble[0].weights,
                tf.constant(x[index : index + 1]),
                y[index : index + 1],
                np.array([-0.03], "float32"),
            )
            np.testing.assert_allclose(moved[index], alone[0, 0], atol=1e-6)

    def test_it_follows_the_finite_differences_of_the_mean_probability(self, ensemble):
        x, y = random_images(2)
        moved = projected_gradient(ensemble, x, y, 0.01, steps=1, random_start=False, clip=None)
        rng = np.random.default_rng(0)
        checked = 0
        for pixel in rng.integers(0, x[0].size, 40):
            step = np.zeros(x[0].size, "float32")
            step[pixel] = 1e-2
            step = step.reshape(x[0].shape)
            above, below = (
                np.log(ensemble.predict(x + sign * step)[np.arange(2), y]) for sign in (1, -1)
            )
            for image in range(2):
                if abs(above[image] - below[image]) > 1e-4:
                    change = (moved - x)[image].ravel()[pixel]
                    assert np.sign(change) == -np.sign(above[image] - below[image])
                    checked += 1
        assert checked > 20

    @pytest.mark.parametrize("targeted", [False, True])
    def test_steps_stay_near_and_in_the_range_and_do_what_they_should(self, ensemble, targeted):
        x, y = random_images(20)
        options = {"steps": 5, "targeted": targeted, "batch_size": 7}
        moved = projected_gradient(ensemble, x, y, 0.1, random_start=False, **options)
        drawn = projected_gradient(ensemble, x, y, 0.1, **options)
        assert np.abs(drawn - x).max() <= 0.1 + 1e-6
        assert not np.array_equal(moved, drawn)
        assert np.abs(moved - x).max() <= 0.1 + 1e-6
        assert moved.min() >= 0 and moved.max() <= 1
        before, after = (ensemble.predict(images)[np.arange(20), y] for images in (x, moved))
        better = after > before if targeted else after < before
        assert better.mean() > 0.9

    def test_each_step_may_have_networks_of_its_own(self):
        """The second network has the classes of the first one swapped: its step leads back."""
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        target = hn.Target(model, outputs="logits")
        rng = np.random.default_rng(0)
        kernel, bias = rng.normal(size=(1, 4, 2)), rng.normal(size=(1, 2))
        called_steps = []

        def networks(step):
            called_steps.append(step)
            order = [1, 0] if step == 1 else [0, 1]
            weights = [tf.constant(w[..., order], tf.float32) for w in (kernel, bias)]
            return hn.Ensemble(target, hn.WeightSet(weights, []))

        x, y = rng.uniform(size=(3, 4)).astype("float32"), np.array([0, 1, 0])
        options = {"step_size": 0.01, "random_start": False, "clip": None}
        moved = projected_gradient(networks, x, y, 0.1, steps=1, **options)
        np.testing.assert_allclose(np.abs(moved - x), 0.01, atol=1e-6)
        called_steps.clear()
        moved = projected_gradient(networks, x, y, 0.1, steps=2, **options)
        np.testing.assert_allclose(moved, x, atol=1e-6)
        assert called_steps == [0, 0, 1]  # the first time for the target
        options = {"steps": 2, "clip": None}
        moved = projected_gradient(networks, x, y, 0.1, random_start=False, **options)
        # Steps of 1.25 eps, the first cut to eps: there and back is 0.25 eps.
        np.testing.assert_allclose(np.abs(moved - x), 0.025, atol=1e-6)
        first, same, other = (
            projected_gradient(networks, x, y, 0.1, seed=s, **options) for s in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, same)
        assert np.abs(first - other).max() > 1e-3

    @pytest.mark.parametrize("epsilon", [-0.1, np.nan, np.inf, None, "small", [0.1, 0.2]])
    def test_a_size_that_is_none_is_an_error(self, ensemble, epsilon):
        with pytest.raises(ValueError, match=r"^epsilon is .*: give the size of the attack, 0 or"):
            projected_gradient(ensemble, *random_images(2), epsilon)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"step_size": -0.1}, r"^step_size is -0\.1: give a number of at least 0"),
            ({"step_size": np.nan}, r"^step_size is nan: give a number of at least 0"),
            ({"clip": (1.0, 0.0)}, r"^clip is \(1\.0, 0\.0\): give the lowest pixel, then"),
            ({"batch_size": -1}, r"^batch_size is -1: give a whole number, at least 1"),
            ({"batch_size": 0}, r"^batch_size is 0: give a whole number, at least 1"),
            ({"steps": 2.5}, r"^steps is 2\.5: give a whole number, at least 1"),
        ],
    )
    def test_options_out_of_range_are_errors(self, ensemble, options, words):
        with pytest.raises(ValueError, match=words):
            projected_gradient(ensemble, *random_images(2), 0.1, **options)

    def test_images_with_nan_are_counted(self, ensemble):
        x, y = random_images(3)
        x = np.array(x)
        x[1] = np.nan
        rule = "^1 of 3 inputs that ran together have NaN, the first of them number 1: "
        with pytest.raises(ValueError, match=rule):
            projected_gradient(ensemble, x, y, 0.1)
        with pytest.raises(ValueError, match=rule):
            adversarial_success(lambda *_: ensemble[:1], x, y, num_networks=0)

    @pytest.mark.parametrize("epsilons", [[0.2, -0.1], [np.nan], [[0.8]], "many"])
    def test_sizes_of_single_steps_are_checked(self, ensemble, epsilons):
        with pytest.raises(ValueError, match=r"^epsilons is .*: give the size of the attack"):
            adversarial_success(lambda *_: ensemble[:1], *random_images(2), epsilons=epsilons)
        with pytest.raises(ValueError, match=r"^batch_size is 0: give a whole number, at least 1"):
            adversarial_success(lambda *_: ensemble[:1], *random_images(2), batch_size=0)

    def test_sizes_in_other_units_are_errors(self, ensemble):
        """8 of 255 grey values, for images in [0, 1]."""
        x, y = random_images(4)
        rule = r"^epsilons? is .*, more than the range of the pixels, "
        with pytest.raises(ValueError, match=rule):
            projected_gradient(ensemble, x, y, 8)
        with pytest.raises(ValueError, match=rule):
            attack_detection(ensemble, ensemble, x, y, [0.1, 8])
        with pytest.raises(ValueError, match=rule):
            adversarial_success(lambda *_: ensemble[:1], x, y, epsilons=[8])

    def test_a_sampler_is_no_ensemble(self, ensemble):
        sampler = hn.DeepEnsemble(small_target(), num_networks=2)
        x, y = random_images(4)
        with pytest.raises(ValueError, match=r"^An attack needs an ensemble, as sampler\.sample\("):
            projected_gradient(sampler, x, y, 0.1)
        with pytest.raises(ValueError, match=r"^Judging needs an ensemble, as sampler\.sample\("):
            attack_detection(ensemble, sampler, x, y, [0.1])
        for given in (sampler, ensemble, 7):
            with pytest.raises(ValueError, match=r"samples networks itself: give a function, lamb"):
                adversarial_success(given, x, y)

    def test_pixels_of_another_range_need_it(self, ensemble):
        x, y = random_images(4)
        with pytest.raises(ValueError, match=r"^Pixels are from .*: give clip, their range, and s"):
            adversarial_success(lambda *_: ensemble[:1], 255 * x, y)

    @pytest.mark.parametrize("temperature", [1.0, 0.02])
    @pytest.mark.parametrize("count", [1, 3])
    def test_sure_networks_have_the_gradient_of_float64(self, ensemble, count, temperature):
        """Where p is 1 in float32, its gradient is 0 there, and the image must still move."""
        members, (x, _) = ensemble[:count], random_images(30)
        members = hn.Ensemble(members.target, members.weights, temperature=temperature)
        y = members.predict(x).argmax(-1)
        moved = projected_gradient(members, x, y, 0.1, steps=1, random_start=False, clip=None)
        images = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = members.target(members.weights, images)  # [N, M, C]
        sharp = logits.numpy().astype("float64") / temperature
        p = np.exp(sharp - sharp.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        is_label = np.eye(3)[y]
        likely = (p * is_label).sum(-1, keepdims=True)
        unlikely = (p * (1 - is_label)).sum(-1, keepdims=True)
        # d p(label) / d logits, times a factor for each image, which leaves the signs.
        slopes = likely * np.where(is_label, unlikely, -p)
        slopes /= np.abs(slopes).max((0, 2), keepdims=True)
        gradient = tape.gradient(logits, images, tf.constant(slopes, tf.float32)).numpy()
        clear = np.abs(gradient) > 1e-3 * np.abs(gradient).max((1, 2, 3), keepdims=True)
        assert clear.mean() > 0.3
        agrees = np.sign(moved - x) == -np.sign(gradient)
        assert agrees[clear].mean() > 0.99  # the rest is rounding
        assert temperature == 1 or (p.max(-1).astype("float32") == 1).mean() > 0.5

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                lambda x, y: (255 * x, y),
                r"^Pixels run from .* to .*, outside of clip=\(0\.0, 1\.0\): ",
            ),
            (lambda x, y: (x, y[:-1]), r"^There are 5 labels for 6 examples"),
            (
                lambda x, y: (x, y + 3),
                r"^Labels must be integers from 0 to 2, one for each example",
            ),
            (lambda x, y: (x[:0], y[:0]), r"^There are no examples to run on"),
            (lambda x, y: (list(x), y), r"^An attack needs the images as one array"),
        ],
    )
    def test_images_and_labels_that_do_not_fit(self, ensemble, change, words):
        x, y = change(*random_images(6))
        for attack in (
            lambda: projected_gradient(ensemble, x, y, 0.1),
            lambda: adversarial_success(lambda *_: ensemble[:1], x, y, clip=(0.0, 1.0)),
            lambda: attack_detection(ensemble, ensemble, x, y, [0.1]),
        ):
            with pytest.raises(ValueError, match=words):
                attack()

    @pytest.mark.parametrize(
        "change",
        [
            lambda x, y: (x.astype("float64"), y.astype("uint8")),
            lambda x, y: (x, np.eye(3)[y]),
            lambda x, y: (x, y[:, None]),
        ],
    )
    def test_images_and_labels_of_other_types(self, ensemble, change):
        x, y = random_images(6)
        np.testing.assert_array_equal(
            projected_gradient(ensemble, *change(x, y), 0.1),
            projected_gradient(ensemble, x, y, 0.1),
        )

    def test_networks_that_return_nan_are_counted(self):
        target, (x, y) = small_target(), random_images(6)
        theta = random_networks(3, 4, target).theta()
        theta[1] = np.nan
        broken = hn.Ensemble(target, target.unflatten(tf.constant(theta)))
        rule = "^1 of 3 networks return NaN or infinity, the first of them number 1: "
        with pytest.raises(ValueError, match=rule):
            projected_gradient(broken, x, y, 0.1)
        with pytest.raises(ValueError, match=rule):
            adversarial_success(lambda *_: broken, x, y, num_networks=0, batch_size=3)

    def test_batch_norm_needs_statistics_of_its_networks(self):
        layers = keras.layers
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Flatten(), layers.BatchNormalization(), layers.Dense(3)]
        )
        target, (x, y) = hn.Target(model, outputs="logits"), random_images(4)
        theta = np.random.default_rng(0).normal(size=(4, target.weight_count)).astype("float32")
        ensemble = hn.Ensemble(target, target.unflatten(tf.constant(theta)))
        for attack in (
            lambda: projected_gradient(ensemble, x, y, 0.1),
            lambda: adversarial_success(lambda *_: ensemble, x, y, num_networks=0),
        ):
            with pytest.raises(ValueError, match=r"^Batch normalisation has no moving statistics"):
                attack()

    def test_the_temperature_of_an_ensemble_is_attacked(self, ensemble):
        """Two networks of different certainty: what their mean follows depends on it."""
        x, y = random_images(12)
        hot = hn.Ensemble(ensemble.target, ensemble.weights, temperature=20.0)
        options = {"steps": 1, "random_start": False, "clip": None}
        moved = projected_gradient(hot, x, y, 0.1, **options)
        assert not np.array_equal(moved, projected_gradient(ensemble, x, y, 0.1, **options))
        step = 1e-2 * np.sign(moved - x)
        above, below = (np.log(hot.predict(x + s * step)[np.arange(12), y]) for s in (1, -1))
        assert (above < below).mean() > 0.9

    def test_no_step_is_an_error(self, ensemble):
        with pytest.raises(ValueError, match=r"^steps is 0: give a whole number, at least 1"):
            projected_gradient(ensemble, *random_images(2), 0.1, steps=0)


class TestDetection:
    def test_its_numbers_are_those_of_the_moved_images(self):
        judge = random_networks(5, 4, small_target())
        x, y = random_images(40)
        result = attack_detection(judge[0], judge, x, y, [0.0, 0.2], steps=3, random_start=False)
        right = judge[0].predict(x).argmax(-1) == y
        assert (result.images, result.attacked) == (40, right.sum())
        assert result.misled[0] == 0
        other = random_networks(5, 9, small_target())
        unmoved = attack_detection(judge[0], other, x, y, [0.0], random_start=False)
        wrong = (other.predict(x[right]).argmax(-1) != y[right]).mean()
        assert unmoved.judge_misled == [unmoved.judge_wrong] == pytest.approx(wrong)
        assert 0 < wrong < 1
        moved = projected_gradient(judge[0], x[right], y[right], 0.2, steps=3, random_start=False)
        for ensemble, misled in ((judge[0], result.misled), (judge, result.judge_misled)):
            wrong = ensemble.predict(moved).argmax(-1) != y[right]
            assert misled[1] == pytest.approx(wrong.mean())
        scores = [judge.uncertainty(images).entropy for images in (x[right], moved)]
        assert result.auroc["entropy"][1] == pytest.approx(hn.ood_metrics(*scores).auroc)
        assert result.auroc["entropy"][0] == pytest.approx(0.5)

    def test_a_target_class_is_refused(self):
        judge = random_networks(2, 4, small_target())
        with pytest.raises(ValueError, match=r"^Attacks lead away from the labels here: leave out"):
            attack_detection(judge, judge, *random_images(5), [0.1], targeted=True)

    def test_nothing_to_attack_is_an_error(self):
        judge = random_networks(1, 4, small_target())
        x, _ = random_images(5)
        wrong = (judge.predict(x).argmax(-1) + 1) % 3
        with pytest.raises(NothingToAttackError, match=r"^None of the 5 images"):
            attack_detection(judge, judge, x, wrong, [0.1])


@pytest.mark.parametrize("end", ["activation", "layer", "activation_then_linear", "sigmoid"])
def test_probabilities_that_round_to_1_are_attacked_as_their_logits(end):
    layers = keras.layers
    units = 1 if end == "sigmoid" else 3
    ends = {
        "logits": [layers.Dense(units)],
        "activation": [layers.Dense(units, activation="softmax")],
        "layer": [layers.Dense(units), layers.Softmax()],
        "activation_then_linear": [
            layers.Dense(units, activation="softmax"),
            layers.Activation("linear", dtype="float32"),
        ],
        "sigmoid": [layers.Dense(units, activation="sigmoid")],
    }
    images, labels = random_images(8)[0].reshape(8, -1)[:, :4], np.zeros(8, int)
    moved = []
    for kind in ("logits", end):
        target = hn.Target(
            keras.Sequential([keras.Input((4,)), *ends[kind]]),
            outputs="logits" if kind == "logits" else None,
        )
        theta = 300 * np.random.default_rng(1).normal(size=(2, target.weight_count))
        ensemble = hn.Ensemble(target, target.unflatten(tf.constant(theta, tf.float32)))
        moved.append(projected_gradient(ensemble, images, labels, 0.1, steps=2, random_start=False))
        towards = fast_gradient_method(
            target, ensemble[:1].weights, tf.constant(images[:1]), labels[:1], [0.1]
        )
        assert (towards.numpy()[0, 0] != images[0]).all()
    np.testing.assert_array_equal(*moved)
    assert (moved[0] != images).any(1).all()


def test_probabilities_of_another_kind_have_no_logits():
    layers = keras.layers
    for end in (layers.Dense(3), layers.Dense(3, activation="softplus")):
        target = hn.Target(keras.Sequential([keras.Input((4,)), end]), outputs="probabilities")
        assert target.with_logits is target
    softmax = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    assert hn.Target(softmax).with_logits.outputs == "logits"


def test_inputs_without_a_gradient_are_one_line():
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4, 4, 1), dtype="uint8"), layers.Rescaling(1 / 255.0), layers.Flatten()]
    )
    model.add(layers.Dense(3, activation="softmax"))
    ensemble = hn.DeepEnsemble(model, num_networks=2).sample(2)
    x = np.zeros((6, 4, 4, 1), "uint8")
    with pytest.raises(ValueError, match=r"^The target takes uint8, which an attack cannot move"):
        projected_gradient(ensemble, x, np.zeros(6, int), 2.0, clip=(0, 255))


def test_softmax_networks_with_layers_that_hold_constants():
    """The copy without a softmax is made outside of the graph of the attack, for any batch."""
    layers = keras.layers
    images, labels = random_images(8)

    def target(end, outputs):
        body = [layers.Normalization(mean=0.3, variance=0.2), layers.Flatten()]
        model = keras.Sequential([keras.Input(images.shape[1:]), *body, layers.Dense(3, **end)])
        return hn.Target(model, outputs=outputs)

    logits, softmax = target({}, "logits"), target({"activation": "softmax"}, None)
    theta = np.random.default_rng(1).normal(size=(5, logits.weight_count))
    theta = tf.constant(theta, tf.float32)
    results = []
    for one in (logits, softmax):
        ensemble = hn.Ensemble(one, one.unflatten(theta))
        results.append(
            adversarial_success(
                lambda count, seed, e=ensemble: e[:count],
                images,
                labels,
                epsilons=[0, 30 / 255],
                batch_size=5,
            )
        )
    np.testing.assert_array_equal(results[0].network, results[1].network)


def test_outputs_of_another_kind_have_logits_of_their_own():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    values = hn.Target(model, outputs="values")
    assert values.with_logits is values
    assert values.with_outputs("probabilities").with_logits.outputs == "logits"
