"""The papers' target networks: their numbers of weights, and what their shortcuts do."""

import keras
import numpy as np
import pytest

import hypernet_tf as hn

MODELS = {
    "lenet": hn.zoo.lenet,
    "resnet32_a": hn.zoo.resnet32,
    "resnet32_b": lambda *args: hn.zoo.resnet32(*args, shortcuts="B"),
}


@pytest.fixture(scope="module")
def models():
    keras.utils.set_random_seed(0)
    return {name: make() for name, make in MODELS.items()}


def trained_weights(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_lenet_has_the_published_weights(models):
    model = models["lenet"]
    counts = [layer.count_params() for layer in model.layers if layer.weights]
    assert counts == [456, 2_416, 48_120, 10_164, 850]
    assert trained_weights(model) == hn.Target(model).weight_count == 62_006


def test_lenet_may_normalize_the_colours_of_its_images(models):
    normalized, plain = hn.zoo.lenet(normalize=True), models["lenet"]
    assert hn.Target(normalized).weight_count == 62_006
    normalized.set_weights(plain.get_weights())
    x = np.random.default_rng(0).random((3, 32, 32, 3), "float32")
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]  # of CIFAR-10's training pixels
    expected = plain(((x - mean) / std).astype("float32"))
    np.testing.assert_allclose(normalized(x), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("shortcuts", "expected"), [("A", 465_290), ("B", 468_138)])
def test_resnet32_has_the_stated_weights(models, shortcuts, expected):
    model = models[f"resnet32_{shortcuts.lower()}"]
    assert trained_weights(model) == expected
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert convolutions[0].count_params() == 448
    assert len(convolutions) == {"A": 31, "B": 33}[shortcuts]  # and one dense layer
    # A bias for each channel that batch normalisation takes away again.
    assert sum(x.filters for x in convolutions) == {"A": 1_136, "B": 1_232}[shortcuts]


def test_the_regression_target_is_0_at_0_and_has_the_published_weights():
    model = hn.zoo.regression()
    assert [tuple(weights.shape) for weights in model.weights] == [(1, 200), (200, 1)]
    assert hn.Target(model).outputs == "values"
    kernel, last = (weights.numpy() for weights in model.weights)
    x = np.array([[-3.0], [0.0], [2.0]], "float32")
    hidden = x @ kernel
    expected = np.where(hidden > 0, hidden, np.expm1(hidden)) @ last
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-6)
    assert expected[1] == 0


def test_unknown_shortcuts_raise():
    with pytest.raises(ValueError, match=r"^Unknown shortcuts='C': choose 'A' or 'B'.$"):
        hn.zoo.resnet32(shortcuts="C")


@pytest.mark.parametrize("name", MODELS)
def test_they_are_ordinary_keras_models(models, name):
    model = models[name]
    assert model.output_shape == (None, 10)
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    x = np.random.default_rng(0).random((2, 32, 32, 3), dtype="float32")
    np.testing.assert_array_equal(again(x), model(x))
    assert np.asarray(model(x)).min() < 0  # logits: no softmax at the end


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_other_images_and_classes(make):
    model = make((28, 36, 1), 7)
    assert model.input_shape == (None, 28, 36, 1)
    assert model.output_shape == (None, 7)


def test_shortcuts_without_weights_are_every_second_pixel_and_zeros_on_both_sides(models):
    model = models["resnet32_a"]
    paddings = [x for x in model.operations if x.name.startswith("pad")]
    pools = [x for x in model.layers if isinstance(x, keras.layers.MaxPooling2D)]
    assert len(paddings) == len(pools) == 2
    rng = np.random.default_rng(0)
    for pool, padding, channels in zip(pools, paddings, (16, 32), strict=True):
        x = rng.normal(size=pool.input.shape[1:])[None].astype("float32")
        assert x.shape[-1] == channels
        expected = np.zeros((1, x.shape[1] // 2, x.shape[2] // 2, 2 * channels), "float32")
        expected[..., channels // 2 : -channels // 2] = x[:, ::2, ::2]
        shortcut = keras.Model(pool.input, padding.output)
        np.testing.assert_array_equal(shortcut(x), expected)


def test_the_mnist_target_has_as_many_outputs_as_classes():
    assert hn.zoo.mnist().count_params() == 20_018
    five = hn.zoo.mnist(classes=5)
    assert five.output_shape == (None, 5)
    assert five.count_params() == 20_018 - 5 * 9


def test_the_mnist_target_of_hypergan_normalises_pixels_and_leaks():
    model = hn.zoo.hypergan_mnist()
    [norm] = [layer for layer in model.layers if isinstance(layer, keras.layers.Normalization)]
    assert norm is model.layers[0]
    x = np.random.default_rng(0).random((2, 28, 28, 1), dtype="float32")
    np.testing.assert_allclose(norm(x), (x - 0.1307) / 0.3081, rtol=1e-4, atol=1e-5)
    leaks = [layer for layer in model.layers if isinstance(layer, keras.layers.LeakyReLU)]
    assert [layer.negative_slope for layer in leaks] == [0.01, 0.01]
    assert hn.zoo.hypergan_mnist(classes=7).output_shape == (None, 7)


def test_the_cifar_target_of_hypergan_takes_other_images_and_classes():
    assert hn.zoo.hypergan_cifar().input_shape == (None, 32, 32, 3)
    model = hn.zoo.hypergan_cifar((28, 28, 1), 7)
    assert (model.input_shape, model.output_shape) == ((None, 28, 28, 1), (None, 7))
