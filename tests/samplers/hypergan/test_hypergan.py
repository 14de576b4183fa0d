"""HyperGAN: its parts, what each side minimises, pretraining, ablations."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, classifier, discriminator, hypergan
from small_training_runs import make_hypergan, run, same_state

import hypernet_tf as hn
from hypernet_tf.diversity import PriorMoments
from hypernet_tf.samplers.hypergan.layers import LayerGenerator


def parameters(layer):
    return sum(int(np.prod(v.shape)) for v in layer.trainable_variables)


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        (hn.zoo.hypergan_mnist, [832, 25_632, 5_130]),
        pytest.param(
            hn.zoo.hypergan_cifar, [896, 18_496, 36_928, 32_896, 1_290], marks=pytest.mark.slow
        ),
    ],
)
def test_parameters_of_the_published_configurations(model, weights):
    """Mixer 256→512→512→layers·64, generators 64→512→512→weights, discriminator 64→512→512→1."""
    gan = hn.HyperGAN(model())
    gan.build_terms()
    assert [unit[0].size for unit in gan.target.units] == weights
    layers = len(weights)
    norm = 2 * 512  # two layers of 512 scales
    assert parameters(gan.mixer) == 256 * 512 + 512 * 512 + 512 * layers * 64 + 2 * norm
    assert [parameters(generator) for generator in gan.generators] == [
        64 * 512 + 512 * 512 + 512 * size + norm for size in weights
    ]
    (term,) = gan.trained_terms
    assert parameters(term) == 64 * 512 + 512 + 512 * 512 + 512 + 512 + 1
    expected = {31_594: 17_853_953, 90_506: 48_674_305}[sum(weights)]
    assert parameters(gan) == expected


class TestLatentVector:
    @pytest.mark.usefixtures("eager_fits")
    def test_it_is_all_normals_of_a_network(self):
        gan = hypergan()
        assert gan.latent_dim == 4 + 4 + 2 * 3
        assert hypergan(mixer_noise=0.0).latent_dim == 4 + 2 * 3
        assert hypergan(mixer_noise=0.0, generator_noise=0.0).latent_dim == 4
        assert hypergan(codes="independent", diversity=[]).latent_dim == 2 * 3 + 2 * 3
        z = gan.sample_latent(5, seed=3)
        theta = gan.sample(5, seed=3).theta()
        np.testing.assert_allclose(gan.target.flatten(gan.weights_of(z)), theta, atol=1e-5)

    def test_noise_is_there_at_evaluation(self):
        """The codes change with the mixer's noise, the weights with that on the codes too."""
        gan = hypergan(mixer_noise=0.5, generator_noise=0.5)
        z = np.zeros([3, gan.latent_dim], "float32")
        z[1, 4], z[2, 8] = 1, 1
        drawn = gan.generate(tf.constant(z))
        codes = tf.concat(drawn.codes, 1).numpy()
        theta = np.concatenate([w.numpy().reshape(3, -1) for w in drawn.trainable], 1)
        assert np.abs(codes[1] - codes[0]).max() > 1e-3
        np.testing.assert_array_equal(codes[2], codes[0])
        assert np.abs(theta[2] - theta[0]).max() > 1e-3

    def test_noise_on_the_input_is_added_to_s(self):
        gan = hypergan(mixer_noise=0.5, generator_noise=0.0)
        s, noise = np.random.default_rng(0).normal(size=[2, 3, 4]).astype("float32")
        codes = gan.generate(tf.constant(np.concatenate([s, noise], 1))).codes
        expected = gan.mixer(tf.constant(s + 0.5 * noise))
        np.testing.assert_allclose(tf.concat(codes, 1), expected, rtol=1e-5)

    def test_noise_on_the_codes_has_a_scale_of_its_own(self):
        gan = hypergan(mixer_noise=0.0, generator_noise=0.5)
        z = gan.sample_latent(3)
        drawn = gan.generate(z)
        noise = tf.reshape(z[:, 4:], [3, 2, 3])
        row = gan.generators[0](drawn.codes[0][:, 0] + 0.5 * noise[:, 0])
        kernel, bias = drawn.trainable[:2]
        made = tf.concat([tf.reshape(one, [3, -1]) for one in (kernel, bias)], 1)
        np.testing.assert_allclose(np.sort(row), np.sort(made), rtol=1e-5)

    def test_independent_codes_are_draws_of_the_prior(self):
        gan = hn.HyperGAN(classifier(), code_dim=3, generator_hidden=(8,), codes="independent")
        assert gan.mixer is None
        assert gan.trained_terms == []
        drawn = gan.draw(gan.sampling_seed(0), 2_000, training=False)
        codes = tf.concat(drawn.codes, 1)[:, :, 0].numpy()
        np.testing.assert_allclose(np.corrcoef(codes.T), np.eye(2), atol=0.06)
        assert codes.std() == pytest.approx(1, abs=0.05)


class TestInitialization:
    @pytest.mark.parametrize("initialization", ["scaled", "model"])
    def test_weights_scatter_as_the_models_own(self, initialization):
        model = keras.Sequential(
            [
                keras.Input((16, 16, 2)),
                keras.layers.Conv2D(8, 3, kernel_initializer="he_normal"),
                keras.layers.BatchNormalization(),
                keras.layers.Flatten(),
                keras.layers.Dense(5, bias_initializer="ones"),
            ]
        )
        gan = hn.HyperGAN(model, num_networks=200, initialization=initialization)
        drawn = gan.draw(gan.sampling_seed(0), 200, training=True)
        kernel, bias, gamma, beta, dense, ones = (w.numpy() for w in drawn.trainable)
        assert kernel.std() == pytest.approx((2 / 18) ** 0.5, rel=0.1)
        assert dense.std() == pytest.approx((2 / (8 * 14 * 14 + 5)) ** 0.5, rel=0.1)
        for values, mean in ((bias, 0), (gamma, 1), (beta, 0), (ones, 1)):
            assert (values == mean).all()
        assert np.concatenate(drawn.codes, 1).std() == pytest.approx(1, rel=0.2)

    def test_networks_scatter_around_an_anchor(self):
        for scatter in (0.2, 1.0):
            gan = hn.HyperGAN(keras.Sequential([keras.Input((50,)), keras.layers.Dense(20)]),
                              num_networks=200, scatter=scatter)  # fmt: skip
            kernel = gan.draw(gan.sampling_seed(0), 200, training=True).trainable[0].numpy()
            model_std = (2 / 70) ** 0.5
            # The mean of an ELU of a standard normal is not zero: it shifts all networks alike.
            assert kernel.std(0).mean() == pytest.approx(scatter * model_std, rel=0.1)
            assert kernel.std() == pytest.approx(model_std, rel=0.1)

    def test_a_step_of_adam_moves_scaled_weights_less(self):
        moments = [(10, 0.0, 1.0)]
        options = {"activation": "elu", "shift": False, "scatter": 1.0}
        outputs = []
        for scale in (False, True):
            keras.utils.set_random_seed(0)
            generator = LayerGenerator((64,), moments, scale_output=scale, **options)
            generator.build((None, 4))
            x = tf.random.stateless_normal([30, 4], [0, 0])
            before = generator(x, training=True)
            generator.last.kernel.assign_add(1e-3 * tf.ones_like(generator.last.kernel))
            outputs.append(float(tf.reduce_mean(tf.abs(generator(x, training=True) - before))))
        assert outputs[1] == pytest.approx(outputs[0] / 8, rel=1e-2)


class TestObjective:
    """The discriminator's step sends no gradient to the mixer, and the reverse."""

    @pytest.fixture
    def moved(self, blobs):
        def moved(rate, rate_of_discriminator, **options):
            keras.utils.set_random_seed(0)
            term = discriminator(keras.optimizers.SGD(rate_of_discriminator))
            gan = hypergan(diversity=term, l2=0.0, **options)
            gan.compile(keras.optimizers.SGD(rate), LOGITS, run_eagerly=True)
            parts = {"mixer": gan.mixer, "generators": gan.generators[0], "discriminator": term}
            before = {k: [v.numpy() for v in p.trainable_variables] for k, p in parts.items()}
            gan.train_on_batch(*blobs)
            return {
                name: max(
                    float(np.abs(v.numpy() - b).max())
                    for v, b in zip(part.trainable_variables, before[name], strict=True)
                )
                for name, part in parts.items()
            }

        return moved

    def test_the_discriminators_step_moves_only_itself(self, moved):
        changes = moved(0.0, 0.1)
        assert changes["discriminator"] > 1e-4
        assert changes["mixer"] == changes["generators"] == 0

    def test_the_adversarial_loss_moves_only_the_mixer(self, moved):
        changes = moved(0.1, 0.0, lam=0.0)
        assert changes["mixer"] > 1e-5
        assert changes["discriminator"] == changes["generators"] == 0

    def test_the_target_loss_moves_mixer_and_generators(self, moved):
        changes = moved(0.1, 0.0)
        assert min(changes["mixer"], changes["generators"]) > 1e-5
        assert changes["discriminator"] == 0

    def test_the_loss_adds_up(self, blobs):
        gan = hypergan(lam=3.0, l2=0.1)
        gan.compile("sgd", LOGITS, run_eagerly=True)
        squares = sum(float(tf.reduce_sum(v.value**2)) for v in gan.generating_variables)
        logs = gan.train_on_batch(*blobs, return_dict=True)
        expected = 3 * logs["accuracy_loss"] + logs["diversity_loss"] + 0.05 * squares
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.usefixtures("eager_fits")
    def test_norm_spread_is_that_of_the_weights_outside_of_the_gauge(self):
        gan = hypergan()
        drawn = gan.draw(gan.sampling_seed(3), 20, training=False)
        theta = np.concatenate([w.numpy().reshape(20, -1) for w in drawn.trainable], 1)
        norms = np.linalg.norm(theta, axis=1)
        spread = norms.std() / norms.mean()
        assert gan.norm_spread(20, seed=3) == pytest.approx(spread, rel=1e-4)
        gauged = np.linalg.norm(gan.sample(20, seed=3).theta(), axis=1)
        assert abs(gauged.std() / gauged.mean() - spread) > 0.1 * spread

    def test_without_a_discriminator_there_is_no_adversarial_loss(self, blobs):
        gan = hypergan(diversity=[])
        gan.compile("sgd", LOGITS, run_eagerly=True)
        assert gan.train_on_batch(*blobs, return_dict=True)["diversity_loss"] == 0


class TestPretraining:
    def test_it_stops_at_the_error(self):
        gan = hypergan(pretrain_steps=500)
        steps, error = gan.pretrain_mixer(error=0.1)
        assert 1 < steps < 500
        assert error <= 0.1
        assert gan.pretrain_mixer(error=0.1)[0] < steps  # it goes on from there

    @pytest.mark.usefixtures("eager_fits")
    def test_it_stops_after_its_steps(self, capfd):
        assert hypergan().pretrain_mixer(error=0.0, max_steps=3, verbose=1)[0] == 3
        assert "pretraining: 100%" in capfd.readouterr().err

    def test_codes_come_near_the_prior(self):
        def error(gan):
            return float(PriorMoments()(hn.diversity.StepRecord(None, codes=gan.draw(
                gan.sampling_seed(0), 1_000, training=False
            ).codes)))  # fmt: skip

        gan = hypergan()
        before = error(gan)
        gan.pretrain_mixer(error=0.05, max_steps=500)
        assert error(gan) < 0.2 * before

    @pytest.mark.usefixtures("eager_fits")
    def test_the_first_fit_does_it_once(self, blobs, tmp_path):
        counts = []

        class Counted(hn.HyperGAN):
            def pretrain_mixer(self, **kwargs):
                counts.append(1)
                return super().pretrain_mixer(**kwargs)

        def fit(gan, x, y):
            gan.fit(x, y, batch_size=96, verbose=0)

        gan = Counted(
            classifier(), noise_dim=4, code_dim=3, mixer_hidden=(8,), generator_hidden=(8,),
            pretrain_steps=3, diversity=[],
        )  # fmt: skip
        gan.compile("sgd", LOGITS, run_eagerly=True)
        assert int(gan.pretrained.numpy()) == 0
        for _ in range(2):
            fit(gan, *blobs)
        assert len(counts) == int(gan.pretrained.numpy()) == 1
        gan.save_weights(tmp_path / "gan.weights.h5")
        other = Counted.from_config(gan.get_config())
        other.load_weights(tmp_path / "gan.weights.h5")
        other.compile("sgd", LOGITS, run_eagerly=True)
        fit(other, *blobs)
        assert len(counts) == 1

    @pytest.mark.usefixtures("eager_fits")
    def test_it_is_a_function_of_the_seed(self):
        def codes(seed):
            keras.utils.set_random_seed(0)
            gan = hypergan(seed=seed)
            gan.pretrain_mixer(max_steps=3)
            return gan.mixer(tf.ones([1, 4])).numpy()

        np.testing.assert_array_equal(codes(0), codes(0))
        assert np.abs(codes(0) - codes(1)).max() > 1e-6


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tmp_path):
    """Mixer, generators, discriminator and both optimizers, bit for bit."""
    whole, record = run(tmp_path / "whole", 5, make=make_hypergan)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000005")
    resumed, resumed_record = run(tmp_path / "parts", 5, make=make_hypergan)
    assert int(resumed.trained_terms[0].optimizer.iterations.numpy()) == 5
    same_state(whole, resumed)
    names = ("discriminator_loss", "discriminator_accuracy", "norm_spread")
    for a, b in zip(record["history"][-1:], resumed_record["history"][-1:], strict=True):
        assert a == b
        assert set(names) <= set(a)
    written = b"".join(p.read_bytes() for p in (tmp_path / "whole" / "tensorboard").glob("*"))
    assert all(f"training/{name}".encode() in written for name in names)


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_networks": 1}, "num_networks is 1: HyperGAN normalises over the networks"),
            ({"code_dim": 0}, "code_dim is 0: give a whole number, at least 1"),
            ({"noise_dim": 2.5}, "noise_dim is 2.5: give a whole number, at least 1"),
            ({"mixer_noise": -1.0}, "mixer_noise is -1.0: give a finite number"),
            ({"l2": float("nan")}, "l2 is nan: give a finite number"),
            ({"codes": "none"}, "Unknown codes='none': choose 'mixed' or 'independent'"),
            ({"scatter": 0.0}, "scatter is 0.0: give a number above 0, at most 1"),
            ({"initialization": "he"}, "Unknown initialization='he'"),
            ({"generator_hidden": [(8,)]}, "generator_hidden has 1 entries: give one for each of"),
        ],
    )
    def test_mistakes_are_one_line(self, options, message):
        with pytest.raises(ValueError, match=message) as error:
            hypergan(**options)
        assert "\n" not in str(error.value)

    def test_there_is_no_mixer_to_pretrain(self):
        with pytest.raises(ValueError, match="Cannot pretrain the mixer: codes='independent'"):
            hypergan(codes="independent", diversity=[]).pretrain_mixer()

    def test_sizes_of_each_generator(self):
        """The published regression: one generator has a hidden layer of 256, the other of 128."""
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((1,)),
                layers.Dense(200, activation="elu", use_bias=False),
                layers.Dense(1, use_bias=False),
            ]
        )
        gan = hn.HyperGAN(
            model, num_networks=32, noise_dim=128, code_dim=128, mixer_hidden=(256, 128),
            generator_hidden=[(256,), (128,)],
        )  # fmt: skip
        kernels = [
            [tuple(v.shape) for v in part.trainable_variables if len(v.shape) == 2]
            for part in (gan.mixer, *gan.generators)
        ]
        assert kernels == [
            [(128, 256), (256, 128), (128, 256)],
            [(128, 256), (256, 200)],
            [(128, 128), (128, 200)],
        ]
        assert gan.get_config()["generator_hidden"] == [[256], [128]]


@pytest.mark.slow
def test_defaults_learn_the_digits(load_once):
    """Measured, one seed, 1,000 test digits: networks 94.2 %, ensemble 95.6 %."""
    digits = load_once("mnist_5k")
    gan = hn.HyperGAN(hn.zoo.mnist())
    gan.compile("adam", LOGITS, metrics=["accuracy"])
    gan.fit(digits.train.x, digits.train.y, epochs=3, verbose=0)
    logs = gan.evaluate(digits.test.x, digits.test.y, return_dict=True, verbose=0)
    assert logs["member_accuracy"] > 0.92
    assert logs["ensemble_accuracy"] > logs["member_accuracy"]


def test_a_wrong_shape_is_found_before_the_pretraining(monkeypatch):
    sampler = hypergan()
    sampler.compile(loss=LOGITS)
    monkeypatch.setattr(sampler, "pretrain_mixer", lambda **_: pytest.fail("pretrained"))
    with pytest.raises(ValueError, match=r"^Inputs have shape \(6, 5\), but the target takes"):
        sampler.fit(np.zeros((6, 5), "float32"), np.zeros(6, "int64"), verbose=0)


@pytest.mark.usefixtures("eager_fits")
def test_after_the_first_step_there_is_no_pretraining(blobs, monkeypatch):
    sampler = hypergan()
    sampler.compile("sgd", LOGITS)
    sampler.train_on_batch(*blobs)
    monkeypatch.setattr(sampler, "pretrain_mixer", lambda **_: pytest.fail("pretrained"))
    sampler.fit(*blobs, verbose=0)


def test_averages_of_the_optimizer_are_an_error():
    with pytest.raises(ValueError, match=r"^use_ema averages the variables of the networks' loss"):
        hypergan().compile(keras.optimizers.Adam(use_ema=True), loss=LOGITS)


def test_the_entropy_takes_the_dimension_that_the_weights_can_have():
    """Those of the codes, or of the noise from which these follow, and no more than the weights."""
    sizes = {"noise_dim": 4, "code_dim": 3}  # two units
    assert hypergan(**sizes, mixer_noise=True, generator_noise=False).manifold_dim == 4
    assert hypergan(**sizes, generator_noise=True).manifold_dim == 6
    assert hypergan(noise_dim=80, code_dim=40, generator_noise=True).manifold_dim == 51
