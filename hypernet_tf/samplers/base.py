"""`WeightSampler`: what every system that makes weights has in common, as a Keras model."""

from __future__ import annotations

import abc
import functools
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.diversity import DiversityTerm, NegativeEntropy, NegativeLogPrior, StepRecord
from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.gauge import Gauge
from hypernet_tf.samplers.batching import Share, collect, deal, widened
from hypernet_tf.samplers.draws import EVALUATE, SAMPLE, TRAIN, Draw, stream_seed
from hypernet_tf.targets import Target, WeightSet


class WeightSampler(keras.Model, abc.ABC):
    """A Keras model whose examples train N generated networks at once.

    Loss: `lam · accuracy loss + sum of the diversity terms`, the accuracy loss being the compiled
    Keras loss of the networks' outputs, averaged over networks (Deutsch et al. 2019, eq. 1 and 2);
    a system may add a term of its own (`own_loss`). Target and terms see *gauged* weights.

    `fit` and `evaluate` take ordinary data. Each batch is dealt out: its first share to the first
    network, and so on; `batch_size` counts the images of the whole step, N·B. Of a batch that does
    not divide by N each example counts once, as ever; some networks then see fewer of them.
    `evaluate` deals to N networks that are the same for every batch: it returns the *mean member's*
    loss and metrics. How an ensemble does is `sample(count).evaluate(x, y)`; `predict` is the mean
    prediction of a stated number of networks.

    Args:
        target: the `Target`.
        num_networks: N, how many networks a training step draws.
        lam: factor on the accuracy loss; a variable, `sampler.lam`.
        lam_growth: lam is multiplied by it after each training step.
        diversity: a diversity term or a list of them; [] for none.
        prior_scale: standard deviation of a normal prior on the weights, which adds `NegativeLogPrior`;
            or None.
        gauge: whether symmetries are fixed; or a dict with options of `Gauge`.
        gauge_epsilon: see `Gauge`.
        seed: the seed of training. A step is a function of (seed, step, variables, data).

    Attributes:
        batch_norm_data: images on which `sample` computes batch norm's moving statistics; or None.
    """

    # Whether training steps run on gauged weights, as samples always do.
    trains_in_gauge = True

    def __init__(
        self,
        target: Target,
        *,
        num_networks: int = 32,
        lam: float = 1.0,
        lam_growth: float = 1.0,
        diversity: DiversityTerm | list[DiversityTerm] | None = None,
        prior_scale: float | None = None,
        gauge: bool | dict[str, bool] = True,
        gauge_epsilon: float = 1e-8,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        target = target if isinstance(target, Target) else Target(target)
        if num_networks < 1:
            raise ValueError(f"a step draws at least one network, not {num_networks}")
        if not 0 <= lam < float("inf"):
            raise ValueError(f"lam is a finite number, not below 0; not {lam}")
        if diversity is None:
            diversity = [NegativeEntropy()]
        self.target, self.num_networks, self.lam_growth = target, num_networks, lam_growth
        self.diversity = list(diversity) if isinstance(diversity, list | tuple) else [diversity]
        self.prior_scale, self.seed, self.gauge_epsilon = prior_scale, seed, gauge_epsilon
        self._gauge_options = dict(gauge) if isinstance(gauge, dict) else gauge
        self._terms = self.diversity + (
            [] if prior_scale is None else [NegativeLogPrior(prior_scale)]
        )
        self._initial_lam = float(lam)
        options = dict(gauge) if isinstance(gauge, dict) else {}
        self._new_gauge = functools.partial(Gauge, target, epsilon=gauge_epsilon, **options)
        self._fix = None if gauge is False else self._new_gauge()
        self._sampled: Any = None
        self.batch_norm_data: Any = None
        self.lam = self.add_weight(
            name="lam", initializer=keras.initializers.Constant(lam), trainable=False
        )
        self.step = self.add_weight(
            name="step", dtype="int64", trainable=False, aggregation="only_first_replica"
        )
        self.accuracy_loss_tracker = keras.metrics.Mean(name="accuracy_loss")
        self.diversity_tracker = keras.metrics.Mean(name="diversity_loss")

    # ---- what a system provides -----------------------------------------------------------

    @abc.abstractmethod
    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """Make the weights of `count` networks from a stateless seed (two integers)."""

    def draw_share(self, seed: tf.Tensor, count: int, share: Share, *, training: bool) -> Draw:
        """A replica's networks of `draw(seed, count)`."""
        return keras.tree.map_structure(share.take, self.draw(seed, count, training=training))

    def own_loss(self, drawn: Draw) -> tf.Tensor:
        """What the system itself adds to the objective of a step: a mean over networks, here 0."""
        return tf.zeros([])

    # ---- sampling -------------------------------------------------------------------------

    @property
    def num_available(self) -> int | None:
        """How many networks a finite sampler has; None where there is no end to them."""
        return None

    def num_available_after(self, steps: int) -> int | None:
        """What `size` is after so many training steps."""
        return self.num_available

    def gauge(self, weights: WeightSet) -> WeightSet:
        """The weights that the target runs on."""
        return weights if self._fix is None else self._fix(weights)

    def sampling_seed(self, seed: int) -> tf.Tensor:
        """The stateless seed from which `sample(count, seed=seed)` draws."""
        return stream_seed(self.seed, SAMPLE, seed)

    def _networks(
        self, seed: Any, count: int, share: Any = None, *, training: bool = False, fix: bool = True
    ) -> tuple[Draw, WeightSet]:
        """Draw networks, or a replica's share of them, and fix their gauge."""
        share = share or Share(count, replicas=1)
        drawn = self.draw_share(seed, count, share, training=training)
        state = [share.take(tensor) for tensor in self.target.initial_state(count, seed)]
        weights = WeightSet(drawn.trainable, state)
        fix &= self.trains_in_gauge or not training
        return drawn, self.gauge(weights) if fix else weights

    def sample(self, count: int, *, seed: int = 0) -> Ensemble:
        """Draw networks.

        Args:
            count: how many.
            seed: which ones; the same seed gives the same networks.

        Returns:
            An `Ensemble` of `count` networks in the fixed gauge.

        Example:
            >>> hyper.sample(200, seed=0).evaluate(x_test, y_test)
        """
        if count < 1:
            raise ValueError(f"an ensemble has at least one network, not {count}")
        if self.num_available is not None and count > self.num_available:
            raise ValueError(
                f"this sampler has {self.num_available} networks: {count} are not to be had"
            )
        if self._sampled is None:  # one function, so that the same count is traced once
            self._sampled = tf.function(lambda *of, fix: self._networks(*of, fix=fix)[1])
        draw = functools.partial(self._sampled, self.sampling_seed(seed), count)
        if self.batch_norm_data is None or not self.target.statistics:
            return Ensemble(self.target, draw(fix=True))
        # Networks that train outside the gauge get their statistics outside of it as well: a gauge
        # that comes afterwards is exact, one before is so up to batch normalisation's epsilon.
        ensemble = Ensemble(self.target, draw(fix=self.trains_in_gauge))
        ensemble = ensemble.update_batch_norm(self.batch_norm_data)
        if self.trains_in_gauge:
            return ensemble
        return Ensemble(self.target, self.gauge(ensemble.weights), batch_norm_updated=True)

    # ---- training -------------------------------------------------------------------------

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs):
        """As `keras.Model.compile`; the loss also tells what the target's outputs mean.

        Raises:
            ValueError: a classification loss of logits on outputs that are probabilities, or the
                reverse.
        """
        if check_loss(loss, self.target) == "logits":
            self.target.outputs = "logits"
            if self._fix is not None:  # logits have a symmetry that values do not have
                self._fix = self._new_gauge()
                self._sampled = None
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        # Made here rather than in the first step, which would then be traced twice.
        self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        """As Keras's own, which does nothing where `compile` is overridden."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, data):
        """One step on N networks, or on a replica's share of them; see the class."""
        data = keras.utils.unpack_x_y_sample_weight(data)
        own = stream_seed(self.seed, TRAIN, self.step.value)
        share = Share(self.num_networks)
        share.check(self.optimizer, self.target)
        with tf.GradientTape() as tape:
            drawn, weights = self._networks(own, self.num_networks, share, training=True)
            objective, metrics = self._objective(weights, drawn, data, share, training=True)
            # The optimizer sums gradients over replicas.
            scaled = self.optimizer.scale_loss(objective / share.replicas)
        gradients = tape.gradient(scaled, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.step.assign(self.step + 1)
        self.lam.assign(self.lam * self.lam_growth)
        return metrics

    def test_step(self, data):
        """The objective and the mean member's metrics on one batch, for N fixed networks."""
        data = keras.utils.unpack_x_y_sample_weight(data)
        share = Share(self.num_networks)
        drawn, weights = self._networks(
            stream_seed(self.seed, EVALUATE, 0), self.num_networks, share
        )
        return self._objective(weights, drawn, data, share, training=False)[1]

    def _objective(
        self, weights: WeightSet, drawn: Draw, data: tuple, share: Share, *, training: bool
    ) -> tuple[tf.Tensor, dict]:
        x, y, sample_weight = data
        dealt = deal(x, share.num_networks)
        outputs, _ = self.target.run(weights, dealt, training=training, batch_statistics=True)
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        y_pred = keras.tree.map_structure(lambda t: collect(t, size), outputs)
        # Keras divides a mean by the number of replicas.
        part = self.compute_loss(x, y, y_pred, sample_weight, training=training)
        accuracy_loss = share.replicas * part
        diversity_loss = tf.zeros([])
        if self._terms:
            record = self._record(weights, drawn, dealt, y, share, training=training)
            diversity_loss = sum((term(record) for term in self._terms), diversity_loss)
        objective = self.lam * accuracy_loss + diversity_loss + self.own_loss(drawn)
        self._loss_tracker.update_state(objective)
        self.accuracy_loss_tracker.update_state(accuracy_loss)
        self.diversity_tracker.update_state(diversity_loss)
        return objective, self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _record(
        self, weights: WeightSet, drawn: Draw, dealt: Any, y: Any, share: Share, *, training: bool
    ) -> StepRecord:
        """The step of all N networks as diversity terms see it, the same on each replica."""

        def gathered(parts: Any) -> Any:
            return keras.tree.map_structure(share.gather, parts)

        theta = share.gather(self.target.flatten(weights))
        record = StepRecord(theta, share.gather(drawn.z), gathered(drawn.codes))
        if not any(term.uses_outputs for term in self._terms):
            return record
        # All networks see the images of the first one.
        count = tf.shape(keras.tree.flatten(dealt)[0])[1]
        first = keras.tree.map_structure(lambda tensor: share.first(tensor[0]), dealt)
        outputs, _ = self.target.run(weights, first, training=training, batch_statistics=True)
        labels = keras.tree.map_structure(lambda tensor: share.first(tensor[:count]), y)
        outputs = keras.tree.map_structure(lambda t: self.target.centred(widened(t)), outputs)
        return record._replace(outputs=gathered(outputs), y=labels)

    # ---- prediction -----------------------------------------------------------------------

    def call(self, inputs, training=False):
        """The mean prediction of N networks (those of `evaluate`) on shared inputs."""
        _, weights = self._networks(stream_seed(self.seed, EVALUATE, 0), self.num_networks)
        outputs, _ = self.target.run(weights, inputs, batch_statistics=True)
        return keras.tree.map_structure(
            lambda t: tf.reduce_mean(self.target.activate(t), 0), outputs
        )

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        *,
        num_networks: int | None = None,
        seed: int = 0,
    ) -> Any:
        """The mean prediction of an ensemble: `sample(networks, seed=seed).predict(x)`.

        Args:
            x: inputs [M, ...].
            batch_size: images run at once; None chooses.
            verbose: 1 shows a progress bar.
            num_networks: how many networks answer; None for 100, or all of a finite sampler.
            seed: which ones.

        Returns:
            [M, ...] mean probabilities, or mean values.
        """
        ensemble = self.sample(num_networks or self.num_available or 100, seed=seed)
        return ensemble.predict(x, batch_size=batch_size, verbose=int(verbose == 1))

    # ---- serialisation --------------------------------------------------------------------

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {
            "target": keras.saving.serialize_keras_object(self.target),
            "num_networks": self.num_networks,
            "lam": self._initial_lam,
            "lam_growth": self.lam_growth,
            "diversity": [keras.saving.serialize_keras_object(t) for t in self.diversity],
            "prior_scale": self.prior_scale,
            "gauge": self._gauge_options,
            "gauge_epsilon": self.gauge_epsilon,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict) -> WeightSampler:
        """A sampler from `get_config`."""
        config = dict(config)
        for name in {"target", "diversity"} & config.keys():
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)

    def save_own_variables(self, store):
        """The sampler's own variables, and those of the target's frozen layers."""
        super().save_own_variables(store)
        for index, value in enumerate(self.target.frozen):
            store[f"target_{index}"] = value.numpy()

    def load_own_variables(self, store):
        """The reverse of `save_own_variables`."""
        own = {name: store[name] for name in store.keys()}  # noqa: SIM118 (no dict: no iterator)
        for index, variable in enumerate(self.target.frozen):
            variable.assign(own.pop(f"target_{index}"))
        super().load_own_variables(own)


def check_loss(loss: Any, target: Target) -> str | None:
    """Hold a loss against what a target returns.

    Args:
        loss: what `compile` was given: a Keras loss, its name, or a function.
        target: the target.

    Returns:
        "logits" or "probabilities", whichever a classification loss takes; None for any other loss.

    Raises:
        ValueError: a loss of logits on outputs that are probabilities, or the reverse.
    """
    losses = keras.losses
    loss = losses.get(loss) if isinstance(loss, str) else loss
    classes: tuple = (losses.SparseCategoricalCrossentropy, losses.CategoricalCrossentropy)
    functions = [losses.sparse_categorical_crossentropy, losses.categorical_crossentropy]
    if target.single_column:
        classes += (losses.BinaryCrossentropy,)
        functions.append(losses.binary_crossentropy)
    if not (isinstance(loss, classes) or loss in functions):
        return None
    if getattr(loss, "from_logits", False):
        if target.outputs == "probabilities":
            raise ValueError(
                "the loss takes logits (from_logits=True), but the target ends in probabilities: "
                "drop the target's softmax or from_logits"
            )
        return "logits"
    if target.outputs != "probabilities":
        raise ValueError(
            "the loss takes probabilities, but the target does not end in a softmax: "
            "give the loss from_logits=True"
        )
    return "probabilities"
