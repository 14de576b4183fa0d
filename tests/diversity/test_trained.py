"""Diversity terms with variables of their own."""

import json

import keras
import numpy as np
import pytest
import small_samplers as small
import tensorflow as tf
from brute_force import normal
from small_terms import Referee

import hypernet_tf as hn
from hypernet_tf.diversity import (
    DiversityTerm,
    PriorDiscriminator,
    PriorMoments,
    StepRecord,
    TrainedTerm,
    moment_error,
)


def record():
    return StepRecord(
        theta=tf.constant(normal(5, 7)),
        codes=[tf.constant(normal(5, 2, 3, seed=1)), tf.constant(normal(5, 1, 3, seed=2))],
        seed=tf.constant([3, 4], tf.int64),
    )


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


class TestPriorDiscriminator:
    def test_losses_equal_their_formulas(self):
        term = PriorDiscriminator(hidden=(6,), l2=0.3)
        step = record()
        term.attach(step)
        codes = np.concatenate([np.reshape(code, [-1, 3]) for code in step.codes])
        prior = tf.random.stateless_normal(codes.shape, step.seed)

        def logits(points):
            first, second = term.dense
            hidden = np.maximum(points @ first.kernel.numpy() + first.bias.numpy(), 0)
            return (hidden @ second.kernel.numpy() + second.bias.numpy())[:, 0]

        squares = sum(float((v.numpy() ** 2).sum()) for v in term.trainable_variables)
        expected = -log_sigmoid(logits(np.asarray(prior))).mean()
        expected = (expected - log_sigmoid(-logits(codes)).mean()) / 2
        assert float(term.own_loss(step)) == pytest.approx(expected + 0.15 * squares, rel=1e-5)
        assert float(term.value(step)) == pytest.approx(-log_sigmoid(logits(codes)).mean())
        right = np.concatenate([logits(np.asarray(prior)) > 0, logits(codes) <= 0])
        assert float(term.accuracy_tracker.result()) == pytest.approx(right.mean())

    def test_it_learns_to_tell_codes_from_the_prior(self):
        term = PriorDiscriminator(hidden=(16,), optimizer=keras.optimizers.Adam(0.02))
        codes = [tf.constant(2 + 0.1 * normal(40, 1, 3))]
        for number in range(40):
            step = StepRecord(None, codes=codes, seed=tf.constant([0, number], tf.int64))
            if not number:
                term.attach(step)
                before = float(term.value(step))
            term.train(step)
        term.accuracy_tracker.reset_state()
        assert float(term.own_loss(step)) < 0.2
        assert float(term.accuracy_tracker.result()) > 0.9
        assert float(term.value(step)) > before + 1

    def test_mistakes_are_one_line(self):
        step = record()
        for term in (PriorDiscriminator(), PriorMoments()):
            make = term.attach if isinstance(term, TrainedTerm) else term
            with pytest.raises(ValueError, match="makes no codes"):
                make(step._replace(codes=None))
        few = step._replace(codes=[code[:3] for code in step.codes])
        with pytest.raises(ValueError, match="num_networks of at least 4"):
            PriorMoments()(few)
        several = [step.codes[0], step.codes[1][..., :2]]
        with pytest.raises(ValueError, match=r"codes of several sizes \(2, 3\)"):
            PriorDiscriminator().attach(step._replace(codes=several))
        term = PriorDiscriminator(hidden=(4,))
        small.hypergan(diversity=term).build_terms()
        with pytest.raises(ValueError, match="'discriminator' belongs to another sampler"):
            small.hypergan(diversity=term).build_terms()


def test_moment_error_of_zeros_and_of_the_prior():
    assert float(moment_error(np.zeros([9, 4]))) == pytest.approx(1)
    assert float(moment_error(normal(50_000, 4))) < 1e-3
    errors = [float(moment_error(normal(200, 64, seed=s))) for s in range(20)]
    assert np.mean(errors) == pytest.approx(66 / 200, rel=0.03)


@pytest.mark.parametrize(("scale", "error"), [(1.0, 0.0), (0.5, 0.5625), (0.0, 1.0)])
def test_moments_of_few_networks_have_no_bias(scale, error):
    """Of N(0, scale² I): (1 - scale²)², so that codes which collapse are not better."""
    codes = tf.constant(scale * normal(16, 64 * 200).reshape(16, 200, 64), tf.float32)
    value = float(PriorMoments()(StepRecord(None, codes=[codes])))
    # Of one code the standard deviation is 0.22: three standard errors of 200 codes.
    assert value == pytest.approx(error, abs=0.05)


@pytest.mark.parametrize(
    ("term", "options"),
    [
        (PriorDiscriminator, {"hidden": (5, 4), "l2": 0.1, "name": "critic"}),
        (Referee, {"noise": 0.3, "name": "judge"}),
    ],
)
def test_configuration_survives_serialisation(term, options):
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5))
    made = term(optimizer=optimizer, weight=1.5, **options)
    text = json.dumps(keras.saving.serialize_keras_object(made))
    copy = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(copy) is term
    assert copy.get_config() == made.get_config()
    assert copy.weight == 1.5
    assert not copy.built


@pytest.mark.usefixtures("eager_fits")
class TestInASampler:
    """A term that is not a discriminator, in a sampler that is not a HyperGAN."""

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, blobs, eagerly):
        keras.utils.set_random_seed(0)
        term = Referee(optimizer=keras.optimizers.Adam(0.01), weight=0.01)
        entropy = hn.diversity.NegativeEntropy()
        with eagerly():
            sampler, history = small.fitted(
                small.hypernetwork, *blobs, epochs=4, diversity=[entropy, term]
            )
        return sampler, term, history

    def test_it_is_trained_and_reported(self, trained):
        sampler, term, history = trained
        assert np.abs(term.line.bias).max() > 0  # it starts at 0
        assert np.isfinite(history["referee_error"]).all() and len(history["referee_error"]) == 4
        assert int(term.optimizer.iterations.numpy()) == int(sampler.step.numpy()) == 8
        of_term = {id(v) for v in term.trainable_variables}
        assert len(of_term) == 2
        assert not of_term & {id(v) for v in sampler.generating_variables}
        assert of_term <= {id(v) for v in sampler.trainable_variables}

    def test_saved_and_loaded_it_goes_on_alike(self, trained, blobs, tmp_path):
        sampler, term, _ = trained
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        for model in (sampler, loaded):
            model.run_eagerly = True  # no time for graphs
            model.make_train_function(force=True)
        logs = [model.train_on_batch(*blobs, return_dict=True) for model in (sampler, loaded)]
        (other,) = loaded.trained_terms
        for a, b in zip(
            term.variables + term.optimizer.variables,
            other.variables + other.optimizer.variables,
            strict=True,
        ):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
        np.testing.assert_array_equal(loaded.sample(2).theta(), sampler.sample(2).theta())
        assert logs[0]["accuracy_loss"] == logs[1]["accuracy_loss"]

    def test_it_is_saved_before_it_has_been_compiled(self, tmp_path):
        sampler = small.hypernetwork(diversity=Referee())
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        for a, b in zip(sampler.variables, loaded.variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
        assert len(loaded.trained_terms[0].variables) == 2


def test_a_step_of_each_side_leaves_the_other_alone(blobs):
    """The term takes its step first, on networks without gradients; then the sampler its own."""

    def moved(rate_of_term, rate):
        keras.utils.set_random_seed(0)
        term = Referee(optimizer=keras.optimizers.SGD(rate_of_term))
        sampler = small.hypernetwork(diversity=term, lam=0.0)
        sampler.compile(keras.optimizers.SGD(rate), small.LOGITS, run_eagerly=True)
        parts = (term.trainable_variables, sampler.generating_variables)
        before = [[v.numpy() for v in part] for part in parts]
        sampler.train_on_batch(*blobs)
        return [
            [float(np.abs(v.numpy() - b).max()) for v, b in zip(part, old, strict=True)]
            for part, old in zip(parts, before, strict=True)
        ]

    of_term, of_sampler = moved(1e-3, 0.0)
    assert min(of_term) > 0
    assert max(of_sampler) == 0
    of_term, of_sampler = moved(0.0, 1e-3)
    assert max(of_term) == 0
    assert max(of_sampler) > 0


def test_the_loss_of_a_term_knows_the_dimension_of_the_weights():
    class Seen(TrainedTerm):
        def build(self, step):
            self.scale = self.add_weight(shape=())

        def own_loss(self, step):
            self.dimension = step.manifold_dim
            return self.scale**2 * step.manifold_dim * tf.reduce_mean(step.theta)

        def value(self, step):
            return tf.zeros([])

    term, step = Seen(), StepRecord(tf.ones([3, 2]), manifold_dim=2)
    term.attach(step)
    term.train(step)
    assert term.dimension == 2


def test_regularizers_of_a_term_are_an_error():
    class Penalised(Referee):
        def build(self, step):
            super().build(step)
            self.add_weight(name="w", shape=(2,), regularizer="l2")

    with pytest.raises(ValueError, match=r"has regularizers, .*: add the penalty in own_loss"):
        small.hypernetwork(diversity=Penalised()).build_terms()


def test_methods_of_the_base_class_are_for_subclasses():
    assert TrainedTerm.__abstractmethods__ == {"build", "own_loss", "value"}
    assert issubclass(TrainedTerm, DiversityTerm)
    with pytest.raises(TypeError, match="abstract"):
        TrainedTerm()
