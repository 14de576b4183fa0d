"""What is asked of sampled networks: paths, attacks, scatter, diversity of filters."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.analysis.attacks import EPSILONS, adversarial_success, fast_gradient_method
from hypernet_tf.analysis.filters import filter_diversity
from hypernet_tf.analysis.paths import direct_path, interpolated_path
from hypernet_tf.analysis.pca import principal_components, weight_views

layers = keras.layers


def target(outputs="logits"):
    last = {"logits": None, "probabilities": "softmax", "values": None}[outputs]
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(5, activation="relu"),
            layers.Dense(3, activation=last),
        ]
    )
    return hn.Target(model, outputs=outputs)


def networks(count, seed=0, of=None):
    of = of or target()
    theta = np.random.default_rng(seed).normal(size=(count, of.weight_count)).astype("float32")
    return hn.Ensemble(of, of.unflatten(tf.constant(theta)))


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(count, 6, 6, 1)).astype("float32"), rng.integers(0, 3, count)


class TestPaths:
    def test_a_direct_path_is_the_straight_line_between_the_weights(self):
        starts, ends = networks(2, 1), networks(2, 2)
        line = direct_path(starts, ends, points=5).theta().reshape(2, 5, -1)
        for pair in range(2):
            for place, t in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
                expected = (1 - t) * starts.theta()[pair] + t * ends.theta()[pair]
                np.testing.assert_allclose(line[pair, place], expected, atol=1e-6)

    def test_an_interpolated_path_is_theta_of_the_line_between_latent_vectors(self):
        own = target()
        matrix = np.random.default_rng(0).normal(size=(3, own.weight_count)).astype("float32")

        def weights_of(z):
            return own.unflatten(tf.tanh(z) @ matrix)

        z = np.array([[1.0, 2.0, -1.0], [0.0, -3.0, 1.0]], "float32")
        line = interpolated_path(own, weights_of, z[:1], z[1:], points=3)
        expected = np.tanh([z[0], (z[0] + z[1]) / 2, z[1]]) @ matrix
        np.testing.assert_allclose(line.theta(), expected, rtol=1e-5, atol=1e-6)
        direct = direct_path(line[:1], line[2:], points=3)
        np.testing.assert_allclose(direct.theta()[[0, 2]], line.theta()[[0, 2]], rtol=1e-5)
        assert np.abs(direct.theta()[1] - line.theta()[1]).max() > 0.1

    def test_state_goes_along(self):
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)]
        )
        own = hn.Target(model, outputs="logits")
        x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
        line = direct_path(networks(2, 1, own), networks(2, 2, own), points=4).update_batch_norm(x)
        assert line.outputs(x).shape == (8, 20, 2)

    def test_what_is_no_path_is_refused(self):
        with pytest.raises(ValueError, match="2 starts for 3 ends"):
            direct_path(networks(2), networks(3))
        with pytest.raises(ValueError, match="at least its 2 ends, not 1"):
            direct_path(networks(2), networks(2), points=1)
        with pytest.raises(ValueError, match="starts of shape"):
            interpolated_path(target(), None, np.zeros((2, 3)), np.zeros((1, 3)))


class TestAttacks:
    @pytest.mark.parametrize("outputs", ["logits", "probabilities"])
    def test_images_move_by_the_sign_of_the_gradient_of_the_class_probability(self, outputs):
        own = target(outputs)
        ensemble, (x, _) = networks(3, 4, own), images(3)
        classes, sizes = np.array([0, 2, 1]), np.array([0.0, 0.02, 0.1], "float32")
        moved = fast_gradient_method(own, ensemble.weights, tf.constant(x), classes, sizes)
        for place, (image, chosen) in enumerate(zip(x, classes, strict=True)):
            model = ensemble[place].to_keras()
            point = tf.constant(image[None])
            with tf.GradientTape() as tape:
                tape.watch(point)
                answer = model(point)
                p = tf.nn.softmax(answer) if outputs == "logits" else answer
                likely = p[0, chosen]
            sign = np.sign(tape.gradient(likely, point)[0])
            for size, result in zip(sizes, moved[place], strict=True):
                np.testing.assert_allclose(result, image + size * sign, atol=1e-6)

    def test_a_class_gets_more_likely_along_its_direction(self):
        own = target()
        ensemble, (x, _) = networks(8, 4, own), images(8)
        classes = np.arange(8) % 3
        sizes = np.array([0.0, 0.005], "float32")
        moved = fast_gradient_method(own, ensemble.weights, tf.constant(x), classes, sizes)
        p = tf.nn.softmax(own(ensemble.weights, moved)).numpy()  # [N, E, C]
        chosen = np.take_along_axis(p, classes[:, None, None], -1)[..., 0]
        assert (chosen[:, 1] >= chosen[:, 0] - 1e-6).all()
        assert (chosen[:, 1] > chosen[:, 0]).mean() > 0.5

    def test_success_equals_a_loop_over_ordinary_keras_models(self):
        own, (x, y) = target(), images(24)
        drawn = {}

        def sample(count, seed):
            drawn.setdefault(seed, (count, networks(count, seed, own)))
            assert drawn[seed][0] == count
            return drawn[seed][1]

        sizes = np.array([0, 10, 60])
        found = adversarial_success(
            sample, x, y, num_networks=7, epsilons=sizes, at_once=10, seed=50, clip=(0.0, 1.0)
        )
        # By hand: the same draws, network by network, image by image.
        wrong = (y + np.random.default_rng(50).integers(1, 3, 24)) % 3
        assert (wrong != y).all()
        rows, seed = [], 51
        for begin in range(0, 24, 10):
            attackers = drawn[seed][1]
            seed += 1
            for place, index in enumerate(range(begin, min(begin + 10, 24))):
                model, image = attackers[place].to_keras(), tf.constant(x[index : index + 1])
                if model(image).numpy().argmax() != y[index]:
                    continue
                with tf.GradientTape() as tape:
                    tape.watch(image)
                    likely = tf.nn.softmax(model(image))[0, wrong[index]]
                sign = np.sign(tape.gradient(likely, image))
                voters = [member.to_keras() for member in drawn[seed][1]]
                seed += 1
                for size in sizes:
                    shown = np.clip(x[index] + size / 255 * sign, 0, 1).astype("float32")
                    own_answer = model(shown).numpy().argmax()
                    votes = np.bincount([v(shown).numpy().argmax() for v in voters], minlength=3)
                    answers = own_answer, votes.argmax()
                    rows.append(
                        [a != y[index] for a in answers] + [a == wrong[index] for a in answers]
                    )
        rows = np.array(rows).reshape(-1, 3, 4)
        assert found.images == 24
        assert found.attacked == len(rows) > 3
        np.testing.assert_allclose(found.network, rows[..., 0].mean(0))
        np.testing.assert_allclose(found.ensemble, rows[..., 1].mean(0))
        np.testing.assert_allclose(found.network_reached, rows[..., 2].mean(0))
        np.testing.assert_allclose(found.ensemble_reached, rows[..., 3].mean(0))
        assert found.network[0] == 0
        assert found.network[-1] > 0.2
        assert found.ensemble[0] > 0  # the vote of other networks may be wrong without any attack

    def test_one_network_without_an_ensemble(self):
        own, (x, y) = target(), images(12)
        found = adversarial_success(
            lambda count, seed: networks(count, 3, own), x, y, num_networks=0, at_once=1
        )
        assert found.ensemble is None
        assert found.network.shape == EPSILONS.shape == (30,)
        assert EPSILONS[-1] == 58

    def test_what_cannot_be_attacked_is_refused(self):
        x, y = images(4)
        with pytest.raises(ValueError, match="target of classes"):
            adversarial_success(lambda count, seed: networks(count, seed, target("values")), x, y)
        constant = target()
        zeros = constant.unflatten(tf.zeros([1, constant.weight_count]))
        with pytest.raises(ValueError, match="none of the 4 images"):
            adversarial_success(
                lambda *_: hn.Ensemble(constant, zeros), x, np.full(4, 2), at_once=1
            )


class TestScatter:
    def test_components_of_a_known_distribution(self):
        rng = np.random.default_rng(0)
        axes, _ = np.linalg.qr(rng.normal(size=(40, 40)))
        scale = np.array([5.0, 3.0, 1.0] + [0.1] * 37)
        vectors = (rng.normal(size=(2000, 40)) * scale) @ axes
        found = principal_components(vectors)
        expected = scale**2 / (scale**2).sum()
        np.testing.assert_allclose(found.explained[:3], expected[:3], atol=0.02)
        assert found.coordinates.shape == (2000, 6)
        np.testing.assert_allclose(found.coordinates[:, :3].std(0), scale[:3], rtol=0.06)
        # Shuffled, the same weights have no common direction left.
        assert found.explained_if_independent.sum() < 0.5 < found.explained.sum()

    def test_weights_that_are_independent_have_no_more_than_chance(self):
        found = principal_components(np.random.default_rng(0).normal(size=(500, 30)))
        np.testing.assert_allclose(
            found.explained.sum(), found.explained_if_independent.sum(), atol=0.02
        )

    def test_fewer_weights_than_components(self):
        assert principal_components(np.random.default_rng(0).normal(size=(9, 2)))[1].shape == (2,)

    def test_too_few_networks_are_refused(self):
        with pytest.raises(ValueError, match="at least 7 networks, not 6"):
            principal_components(np.zeros((6, 10)))

    def test_views_share_out_the_weights(self):
        ensemble = networks(5)
        views = weight_views(ensemble)
        sizes = {name: view.shape[1] for name, view in views.items()}
        parts = [
            size for name, size in sizes.items() if name.startswith("layer") and "," not in name
        ]
        assert sum(parts) == sizes["all weights"] == ensemble.target.weight_count
        first = next(view for name, view in views.items() if "," in name)
        kernel, bias = ensemble.weights.trainable[:2]
        np.testing.assert_array_equal(first[:, :9], kernel[..., 0].numpy().reshape(5, 9))
        np.testing.assert_array_equal(first[:, 9], bias[:, 0])


class TestFilterDiversity:
    def test_by_hand(self):
        ensemble = networks(6)
        kernel, bias, dense, *_ = (w.numpy() for w in ensemble.weights.trainable)
        first, second = filter_diversity(ensemble)
        assert first.diversity.shape == (4,)
        assert second.diversity.shape == (5,)
        for filter_ in range(4):
            rows = np.c_[kernel[..., filter_].reshape(6, -1), bias[:, filter_]]
            np.testing.assert_allclose(
                first.diversity[filter_], np.sqrt(rows.var(0, ddof=1).mean()), rtol=1e-5
            )
            # Pooled to 2 x 2 pixels of 4 channels: the dense layer reads channel c at c, c + 4, ...
            read = dense[:, filter_::4]
            np.testing.assert_allclose(
                first.next_weights[filter_], np.sqrt((read**2).mean()), rtol=1e-5
            )

    def test_networks_that_are_alike_have_none(self):
        ensemble = networks(2)
        alike = direct_path(ensemble[:1], ensemble[:1], points=3)
        for layer in filter_diversity(alike):
            np.testing.assert_allclose(layer.diversity, 0, atol=1e-6)
            assert (layer.next_weights > 0).all()

    def test_one_network_is_refused(self):
        with pytest.raises(ValueError, match="at least 2 networks"):
            filter_diversity(networks(1))
