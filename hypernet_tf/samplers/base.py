"""`WeightSampler`: a Keras model that makes the weights of networks; the base of every sampler."""

from __future__ import annotations

import abc
import contextlib
import functools
import inspect
import os
import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.checks import check_count, check_number, is_number, is_whole
from hypernet_tf.diversity import (
    DiversityTerm,
    NegativeEntropy,
    NegativeLogPrior,
    StepRecord,
    TrainedTerm,
)
from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.ensembles.examples import SomeBatches, is_data_set
from hypernet_tf.gauge import Gauge
from hypernet_tf.samplers.batching import (
    Dealt,
    Part,
    Share,
    map_tensors,
    merge_networks,
    repeat_for_networks,
)
from hypernet_tf.samplers.draws import SAMPLE, TERMS, TRAIN, Draw, stream_seed
from hypernet_tf.samplers.evaluation import EvaluationState, build_metrics
from hypernet_tf.samplers.fit_inputs import arguments_of_fit, some_inputs, trained_inputs
from hypernet_tf.samplers.losses import (
    check_class_axis,
    check_labels,
    check_loss,
    check_per_example,
    check_reduction,
    check_values,
    sees_mean_of_logits,
    some_labels,
    with_accuracy,
)
from hypernet_tf.samplers.optimizers import plain_optimizers
from hypernet_tf.targets import Target, WeightSet
from hypernet_tf.targets.execution import with_masks

# Networks behind `predict`, `evaluate` and a call of a sampler without a limit.
PREDICTION_NETWORKS = 10
# Networks whose norms are compared, as published.
NORM_NETWORKS = 100
# Weights, of all networks together, that `sample` makes at once: making them takes several times
# their memory.
WEIGHTS_AT_ONCE = 2**24


class WeightSampler(keras.Model, abc.ABC):
    """A Keras model that turns random numbers into the complete weights of N networks.

    A training step draws N networks and minimises `lam · accuracy loss + sum of the diversity
    terms`. The accuracy loss is the compiled Keras loss of the networks' outputs, averaged over
    networks (Deutsch et al. 2019, eq. 1 and 2). A sampler may add a term (`extra_loss`). Target and
    terms see *gauged* weights, unless the class sets `trains_in_gauge = False`. Regularizers of the
    target's layers add lam times their mean penalty over networks. They see the weights before the
    gauge, because the gauge changes norms.

    **fit** takes what `keras.Model.fit` takes. Each batch is dealt out: its first share to the
    first network, and so on, so that `batch_size` counts the images of all networks, N·B. If a
    network would have no example (as in a batch with M < N), examples are repeated, and the
    repeated answers count; otherwise each example counts once. Where the networks themselves are
    trained (a deep ensemble, chains), each gets as many examples as any other, and repeated answers
    always count. After `keras.utils.set_random_seed`, Keras shuffles arrays in the same order in
    every epoch, so a network that is there in every step (of a deep ensemble, a chain, a mixture)
    gets the same examples again: give `fit` a shuffled `tf.data.Dataset` instead. With
    `shared_inputs` every network of a step sees the whole batch, so that `batch_size` is B. The
    history has `loss` (the objective, with penalties), `accuracy_loss`, `diversity_loss`, and the
    compiled metrics of single networks by their names.

    **predict**, **evaluate** and a **call** use one set of networks: `sample(10, seed=0)`, or all
    networks of a finite sampler (`prediction_networks`). Each network sees every image.
    `evaluate` returns, and `fit` with `validation_data` reports with the prefix `val_`:

    * `loss`: the objective, lam · (member_loss + penalty) + diversity terms, of these networks.
    * `member_loss`, `member_<metric>`: the compiled loss and metrics of single networks, their
      mean over networks. (A metric that is not a mean over examples, such as AUC, is computed from
      the predictions of all networks together.)
    * `ensemble_loss`, `ensemble_<metric>`: those of the mean probability, or the mean value; this
      is what `predict` returns. If the target returns logits, the loss and the metrics are given
      the logits of the mean probability. (Callbacks that monitor a `val_member_...` or
      `val_ensemble_...` need Keras's argument `mode`.)

    **A new sampler** is a subclass with one method, `draw`.

    Args:
        target: The `Target`, or a Keras model.
        num_networks: N, number of networks that a training step draws.
        lam: Factor on the accuracy loss; a variable, `sampler.lam`.
        lam_growth: Factor by which lam grows after each training step.
        diversity: A diversity term or a list of them; None for `NegativeEntropy()`, [] for none.
        prior_scale: Standard deviation of a normal prior on the weights, which adds
            `NegativeLogPrior`; None for no prior.
        gauge: Whether symmetries are fixed; or a dict with options of `Gauge`. If the compiled loss
            of logits is not one of Keras's for a softmax, their mean stays unless `softmax` is
            among the options.
        gauge_epsilon: Epsilon of `Gauge`.
        shared_inputs: Whether all networks of a training step see the same images.
        seed: Seed of training. A step is a function of (seed, step, variables, data).
        **kwargs: Options of `keras.Model`, such as `name`.

    Attributes:
        target: The target as the sampler runs it; the one that was given never changes.
        batch_norm_data: Inputs on which `sample` computes the moving statistics of batch
            normalisation; of a data set the first 1,000 are kept. Unless they are set, each `fit`
            keeps 1,000 of its training inputs if the target has batch normalisation; one on a
            generator leaves those of before. They are saved with the sampler, unless they are
            words.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import keras, numpy as np, tensorflow as tf, hypernet_tf as hn
        >>> @keras.saving.register_keras_serializable(package="example")
        ... class GaussianSampler(hn.WeightSampler):
        ...     '''Independent normal weights with trained means and standard deviations.'''
        ...
        ...     def __init__(self, target, **kwargs):
        ...         super().__init__(target, **kwargs)
        ...         shape, normal = [self.target.weight_count], "random_normal"
        ...         self.mean = self.add_weight(name="mean", shape=shape, initializer=normal)
        ...         self.log_std = self.add_weight(name="log_std", shape=shape, initializer=normal)
        ...         self.built = True
        ...
        ...     def draw(self, seed, count, *, training):
        ...         noise = tf.random.stateless_normal([count, self.target.weight_count], seed)
        ...         theta = self.mean + tf.exp(self.log_std) * noise          # [N, D]
        ...         return hn.Draw(self.target.unflatten(theta).trainable)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> sampler = GaussianSampler(model, num_networks=8)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> sampler.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
        >>> x, y = np.eye(2, dtype="float32"), np.array([0, 1])
        >>> history = sampler.fit(x, y, epochs=2, verbose=0)
        >>> sorted(sampler.evaluate(x, y, verbose=0, return_dict=True))
        ['ensemble_accuracy', 'ensemble_loss', 'loss', 'member_accuracy', 'member_loss']
        >>> sampler.sample(5).theta().shape
        (5, 9)
    """

    # Whether training steps run on gauged weights, as samples always do.
    trains_in_gauge = True
    # Whether the networks of a step are there in every step, each with weights of its own.
    trains_networks = False
    # The smallest N of a training step.
    min_networks = 1
    # Samplers that take turns in a draw: network i comes from sampler i mod `num_samplers`.
    num_samplers = 1
    # Whether `initialize` looks at inputs.
    initializes_on_inputs = False

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
        shared_inputs: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        target = target if isinstance(target, Target) else Target(target)
        if keras.config.floatx() == "float64":
            raise ValueError(
                "Samplers train in float32: use keras.config.set_floatx('float32'), and "
                "dtype='float64' for single layers of the model."
            )
        if self.variable_dtype != "float32":
            raise ValueError(
                f"Samplers train in float32, not {self.variable_dtype}: use dtype='float32' "
                "or 'mixed_bfloat16'."
            )
        num_networks = check_count("num_networks", num_networks)
        if num_networks < self.min_networks:
            raise ValueError(
                f"num_networks is {num_networks}: {type(self).__name__} normalises over the "
                f"networks of a step, so give at least {self.min_networks}."
            )
        check_number("lam", lam, above_zero=False)
        seed = check_count("seed", seed, 0)
        check_number("lam_growth", lam_growth)
        if not isinstance(gauge, bool | dict):
            raise ValueError(f"gauge is {gauge!r}: give True, False, or a dict of options.")
        known = [*inspect.signature(Gauge).parameters][2:]  # after target and epsilon
        unknown = sorted(gauge.keys() - set(known)) if isinstance(gauge, dict) else []
        if unknown:
            raise ValueError(f"gauge has {', '.join(unknown)}: its options are {', '.join(known)}.")
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            # A network that has a replica to itself has all its images there.
            target = target.with_batch_norm(synchronized=num_networks == 1)
        for name, dtype in target.output_dtypes.items():
            if not keras.backend.is_float_dtype(dtype):
                raise ValueError(
                    f"The output '{name}' is {dtype}, and predictions are means over "
                    "networks: leave it out of the model."
                )
        if diversity is None:
            diversity = [NegativeEntropy()]
        self.target, self.num_networks, self.lam_growth = target, num_networks, lam_growth
        self.diversity = list(diversity) if isinstance(diversity, list | tuple) else [diversity]
        if not all(isinstance(term, DiversityTerm) for term in self.diversity):
            raise ValueError(
                f"diversity is {diversity!r}: give a DiversityTerm, such as "
                "hn.diversity.NegativeEntropy(), or a list of them."
            )
        self.prior_scale, self.seed, self.gauge_epsilon = prior_scale, seed, gauge_epsilon
        self.shared_inputs = bool(shared_inputs)
        self._given_gauge = self._gauge_options = dict(gauge) if isinstance(gauge, dict) else gauge
        self.trains_in_gauge = self.trains_in_gauge and gauge is not False
        self._terms = self.diversity + (
            [] if prior_scale is None else [NegativeLogPrior(prior_scale)]
        )
        self._attached: set[int] = set()  # ids of the trained terms that have their variables
        self._initial_lam = float(lam)
        self._given_target = target
        self._set_target(target)
        self._evaluation: Any = None  # set by compile
        self._compiled_with: Any = None  # loss and metrics that compile was given
        self._sees_mean = False  # whether the compiled loss sees the mean of logits
        self._evaluating = False
        self._batch_norm_data: Any = None
        self._keeps_inputs = True  # whether `fit` keeps inputs for batch normalisation
        self.lam = self.add_weight(
            name="lam", initializer=keras.initializers.Constant(lam), trainable=False
        )
        self.step = self.add_weight(
            name="step", dtype="int64", trainable=False, aggregation="only_first_replica"
        )
        self.accuracy_loss_tracker = keras.metrics.Mean(name="accuracy_loss")
        self.diversity_tracker = keras.metrics.Mean(name="diversity_loss")

    def add_weight(self, *args: Any, autocast: bool = False, **kwargs: Any) -> keras.Variable:
        """As `keras.Layer.add_weight`, but in mixed precision the variable is read as it is.

        A call draws networks: in half precision they would be others than those of `sample`.
        """
        return super().add_weight(*args, autocast=autocast, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """As Keras's; a number goes into the variable that it would replace, such as `lam`.

        Raises:
            AttributeError: It is the diversity, whose terms a sampler gets when it is made.
        """
        current = self.__dict__.get(name)
        if isinstance(current, keras.Variable) and current.shape == () and is_number(value):
            current.assign(value)
        elif name == "diversity" and "_terms" in self.__dict__:
            raise AttributeError(
                "The diversity of a sampler is fixed: make a new one, "
                f"{type(self).__name__}(..., diversity=...)."
            )
        else:
            super().__setattr__(name, value)

    def become_part(self) -> None:
        """Leave the terms of the loss to a mixture, whose part this sampler becomes."""
        super().__setattr__("diversity", [])  # it would save them as its own
        self._terms, self._is_part = [], True

    def _set_target(self, target: Target) -> None:
        """Run on another target from now on; logits have a symmetry that values do not have."""
        self.target = target
        self._raw, self._activations = target.without_activations
        options = self._gauge_options if isinstance(self._gauge_options, dict) else {}
        self._gauge = (
            None
            if self._gauge_options is False
            else Gauge(target, epsilon=self.gauge_epsilon, **options)
        )
        # One function, so that each number of networks is traced once; a partial, so that
        # TensorFlow counts the traces of this sampler alone before it warns of too many.
        self._traced_draw = tf.function(functools.partial(self._draw_weights), autograph=False)
        self._traced_part = tf.function(functools.partial(self._draw_part), autograph=False)

    # ---- what a sampler provides ----------------------------------------------------------

    @abc.abstractmethod
    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """Make the weights of networks from a seed. This is what a new sampler implements.

        It must be a pure function of the seed and the sampler's variables, written in TensorFlow
        operations: use `tf.random.stateless_*`, so that training resumes exactly.

        Args:
            seed: Two integers, a tensor.
            count: Number of networks, N.
            training: Whether a training step asks for them.

        Returns:
            A `Draw`. Its `trainable` holds one tensor [N, ...] for each trainable variable of the
            target; `self.target.unflatten(theta).trainable` makes them of vectors theta [N, D].
        """

    def draw_share(
        self, seed: tf.Tensor, count: int, share: Share | Part, *, training: bool
    ) -> Draw:
        """Some of the networks of `draw(seed, count)`: a replica's, or a part of a large sample.

        A sampler overrides it if it can make a part without making the whole.
        """
        return keras.tree.map_structure(share.take, self.draw(seed, count, training=training))

    def extra_loss(self, drawn: Draw) -> tf.Tensor:
        """A further term of the objective, as a mean over the drawn networks; here 0."""
        return tf.zeros([])

    def regularization(self, drawn: Draw) -> tf.Tensor:
        """The mean penalty of the target's regularizers over the drawn networks, a scalar."""
        return self.target.regularization(drawn.trainable)

    def initialize(self, x: Any = None, *, verbose: int = 0) -> None:
        """What a sampler does once, before its first training step; here nothing.

        `fit` and runs call it while `step` is 0, so a second call must do no harm. Runs pass up to
        1,000 inputs; `fit` does if the sampler `initializes_on_inputs`, unless they come from a
        Python generator.

        Args:
            x: Some training inputs [M, ...]; None if there are none to look at.
            verbose: 1 shows a progress bar.
        """

    def minimized(self, objective: tf.Tensor) -> tf.Tensor:
        """What a training step minimises; here the objective, which is a mean over networks."""
        return objective

    # ---- sampling -------------------------------------------------------------------------

    @property
    def num_available(self) -> int | None:
        """Number of networks of a finite sampler; None if there is no end of them."""
        return None

    @property
    def manifold_dim(self) -> int | None:
        """Dimension of the surface on which theta lies; None if it is not known."""
        return None

    @property
    def min_networks_per_device(self) -> int:
        """The smallest number of a step's networks on a device; 0 if devices may share one."""
        return 0

    def at_most(self, count: int) -> int:
        """A number of networks, or that of all which the sampler holds if that is smaller.

        Args:
            count: The number.
        """
        return min(count, self.num_available or count)

    def gauge(self, weights: WeightSet) -> WeightSet:
        """The weights on which the target runs: those given, their symmetries fixed."""
        return weights if self._gauge is None else self._gauge(weights)

    def sampling_seed(self, seed: int) -> tf.Tensor:
        """The stateless seed from which `sample(count, seed=seed)` draws."""
        return stream_seed(self.seed, SAMPLE, seed)

    def _draw_weights(
        self,
        seed: tf.Tensor,
        count: int,
        share: Share | Part | None = None,
        *,
        training: bool = False,
        in_gauge: bool = True,
    ) -> tuple[Draw, WeightSet]:
        """Draw networks, or a share of them, and the weights on which the target runs."""
        share = share or Share(count, replicas=1)
        drawn = self.draw_share(seed, count, share, training=training)
        state = [share.take(tensor) for tensor in self.target.initial_state(count, seed)]
        weights = WeightSet(drawn.trainable, state)
        return drawn, self.gauge(weights) if in_gauge else weights

    def _draw_part(
        self, seed: tf.Tensor, count: int, start: tf.Tensor, size: int, *, in_gauge: bool
    ) -> WeightSet:
        """The weights of some networks of `_draw_weights(seed, count)`."""
        return self._draw_weights(seed, count, Part(start, size), in_gauge=in_gauge)[1]

    def _draw_in_parts(self, seed: tf.Tensor, count: int) -> WeightSet:
        """The weights of `_draw_weights`, made in parts if they are many."""
        in_gauge = self._draws_in_gauge
        size = max(1, WEIGHTS_AT_ONCE // self.target.weight_count)
        makes_parts = type(self).draw_share is not WeightSampler.draw_share
        if count <= size or not makes_parts or self.num_available is not None:
            return self._traced_draw(seed, count, in_gauge=in_gauge)[1]
        parts = []
        for start in range(0, count, size):
            part = self._traced_part(
                seed, count, tf.constant(start), min(size, count - start), in_gauge=in_gauge
            )
            parts.append([*part.trainable, *part.state])
        num_trainable, tensors = len(part.trainable), []
        del part
        while parts[0]:  # one variable after the other, whose parts are freed
            tensors.append(tf.concat([tensors_of_part.pop(0) for tensors_of_part in parts], 0))
        return WeightSet(tensors[:num_trainable], tensors[num_trainable:])

    @property
    def _draws_in_gauge(self) -> bool:
        """Whether networks are drawn in the gauge.

        Networks that train outside of the gauge get batch normalisation's statistics outside of it
        as well: the gauge that comes afterwards is exact, the one before up to the normalisation's
        epsilon.
        """
        return self.trains_in_gauge or self.batch_norm_data is None or not self.target.statistics

    def _finished(self, weights: WeightSet, verbose: int = 0) -> Ensemble:
        """Networks in the gauge, with batch normalisation's statistics if there is data for them.

        Args:
            weights: The weights as they are drawn, see `_draws_in_gauge`.
            verbose: 1 shows a progress bar.
        """
        ensemble = Ensemble(self.target, weights)
        if self.batch_norm_data is None or not self.target.statistics:
            return ensemble
        ensemble = ensemble.update_batch_norm(self.batch_norm_data, verbose=verbose)
        if self._draws_in_gauge:
            return ensemble
        return Ensemble(self.target, self.gauge(ensemble.weights), batch_norm_updated=True)

    def sample(self, count: int, *, seed: int = 0, verbose: int = 0) -> Ensemble:
        """Draw networks.

        Args:
            count: Number of networks.
            seed: Seed of the draw; the same seed gives the same networks.
            verbose: 1 shows a progress bar of batch normalisation's statistics, which take longest.

        Returns:
            An `Ensemble` of `count` networks in the fixed gauge.

        Raises:
            ValueError: A finite sampler holds fewer networks, or count is not a whole number above
                0.

        Example:
            >>> sampler.sample(200, seed=0).evaluate(x_test, y_test)
        """
        if not is_whole(count) or count < 1:
            raise ValueError(f"Cannot sample {count} networks: give a whole number, at least 1.")
        if self.num_available is not None and count > self.num_available:
            raise ValueError(
                f"Cannot sample {count} networks: this sampler holds {self.num_available}."
            )
        # A NumPy integer would become a tensor in the traced function.
        return self._finished(self._draw_in_parts(self.sampling_seed(seed), int(count)), verbose)

    def norm_spread(self, count: int = NORM_NETWORKS, *, seed: int = 0) -> float | None:
        """How much the L2 norms of networks differ: their standard deviation over their mean.

            std_n |theta_n| / mean_n |theta_n|

        Weights are those on which training steps run: the gauge, in which samples are, fixes the
        norms of most layers.

        Args:
            count: Number of networks; of a finite sampler at most all that it holds.
            seed: Seed of the draw, see `sample`.

        Returns:
            The spread; None for a single network.

        Example:
            >>> sampler.norm_spread()                               # of 100 networks

        Reference: Ratzlaff and Fuxin (2019), diversity of the generated weights.
        """
        count = self.at_most(count)
        if count < 2:
            return None
        # Without a graph of its own: it is drawn now and then, and a graph takes longer to build.
        _, weights = self._draw_weights(
            self.sampling_seed(seed), count, in_gauge=self.trains_in_gauge
        )
        norms = np.linalg.norm(self.target.flatten(weights), axis=-1)
        return float(norms.std() / norms.mean())

    @property
    def compute_dtype(self):
        """That of variables: the layers of the networks have precisions of their own."""
        return self.variable_dtype

    # ---- training -------------------------------------------------------------------------

    def compile(
        self,
        optimizer="adam",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
        auto_scale_loss=True,
    ):
        """As `keras.Model.compile`; the loss also tells what the target's outputs mean.

        Without a loss, that of the compilation before stays, and so do metrics. XLA compiles steps
        if `jit_compile=True`.

        Raises:
            ValueError: A classification loss of logits on outputs that are probabilities, or the
                reverse; a loss that is a sum over examples, or compares those of a batch; or an
                optimizer that cannot train the sampler. An earlier compilation then stays.
        """
        if any(w is not None and not is_number(w) for w in keras.tree.flatten(loss_weights)):
            raise ValueError("loss_weights are numbers and come third: say metrics=[...].")
        optimizer = keras.optimizers.get(optimizer)
        averaged = any(getattr(one, "use_ema", False) for one in plain_optimizers(optimizer))
        if self.trained_terms and averaged:
            raise ValueError(
                "use_ema averages the variables of the networks' loss, and Keras would take those "
                "of a term with variables of its own for them: compile without use_ema."
            )
        before = self._compiled_with  # what Keras keeps of it
        if before is not None and loss is None:
            loss, loss_weights = before["loss"], loss_weights or before["loss_weights"]
            metrics = before["metrics"] if metrics is None else metrics
            if weighted_metrics is None:
                weighted_metrics = before["weighted_metrics"]
        elif before is not None and metrics is None and weighted_metrics is None:
            metrics, weighted_metrics = before["metrics"], before["weighted_metrics"]
        given_now = {
            "loss": loss,
            "metrics": metrics,
            "loss_weights": loss_weights,
            "weighted_metrics": weighted_metrics,
        }
        check_reduction(loss)
        if not (self.trains_networks and self.num_networks == 1):
            check_per_example(loss)
        check_class_axis(loss, self._given_target)
        given = self._given_target
        meaning = check_loss(loss, given)
        wanted = given if meaning in (None, given.outputs) else given.with_outputs(meaning)
        options = self._given_gauge
        unknown = meaning is None and loss is not None  # not known to be that of a softmax
        self._sees_mean = unknown and sees_mean_of_logits(loss, wanted)
        if self._sees_mean and options is not False:
            options = {"softmax": False} | (options if isinstance(options, dict) else {})
        if wanted.outputs != self.target.outputs or options != self._gauge_options:
            self._gauge_options = options
            self._set_target(wanted)
        compiled = {
            "loss": loss,
            "metrics": with_accuracy(metrics, wanted),
            "loss_weights": loss_weights,
            "weighted_metrics": with_accuracy(weighted_metrics, wanted),
        }
        # Keras would ask the sampler's own layers whether XLA can compile them, not the target's.
        super().compile(
            optimizer=optimizer,
            **compiled,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        # No dict: Keras would track the metrics in it, and report those of an earlier compilation.
        self._compiled_with = types.MappingProxyType(given_now)
        self._evaluation = EvaluationState(self.output_names, **compiled)
        self.build_terms()
        # Made here rather than in the first step, which would then be traced twice.
        plain = plain_optimizers(self.optimizer)
        if not any(isinstance(one, keras.optimizers.ScheduleFreeAdamW) for one in plain):
            self.build_optimizer()  # that one starts from the weights that it is built with

    def build_optimizer(self) -> None:
        """Make the variables of the optimizer, where this has not been done."""
        if self.optimizer is not None and not self.optimizer.built:  # None: evaluation only
            with self.distribute_strategy.scope():
                self.optimizer.build(self.generating_variables)

    def make_train_function(self, force=False):
        """As Keras's."""
        self.build_optimizer()
        super().make_train_function(force)

    @property
    def output_names(self) -> list[str]:
        """Names of the target's outputs, by which a dict of losses, metrics or labels goes."""
        return self.target.output_names

    def _by_output(self, values: Any) -> Any:
        """Labels or sample weights by the names of outputs, structured as the outputs are."""
        outputs = self.target.plan.outputs
        if not isinstance(values, dict) or isinstance(outputs, dict):
            alone = isinstance(outputs, dict) and len(outputs) == 1 and values is not None
            if alone and not keras.tree.is_nested(values):  # of the only output
                return keras.tree.pack_sequence_as(outputs, [values])
            return values
        unknown = [name for name in values if name not in self.output_names]
        if unknown:
            raise ValueError(
                f"There is no output '{unknown[0]}': the target has {', '.join(self.output_names)}."
            )
        return keras.tree.pack_sequence_as(outputs, [values.get(n) for n in self.output_names])

    def compile_from_config(self, config):
        """As Keras's own, which does nothing if `compile` is overridden."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.build_optimizer()  # whose state is in the file

    @property
    def trained_terms(self) -> list[TrainedTerm]:
        """The diversity terms with variables of their own."""
        return [term for term in self._terms if isinstance(term, TrainedTerm)]

    @property
    def generating_variables(self) -> list:
        """The trainable variables that make weights: all except those of diversity terms."""
        others = {id(v) for term in self.trained_terms for v in term.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in others]

    def build_terms(self) -> None:
        """Make the variables of diversity terms that have some, where this has not been done.

        `compile`, saving and loading call it.

        Raises:
            ValueError: A term belongs to another sampler, or lacks what this sampler does not make.
        """
        new = [term for term in self.trained_terms if id(term) not in self._attached]
        if not new:
            return
        drawn, weights = self._draw_weights(tf.constant([0, 0], tf.int64), 2)
        outputs = keras.tree.map_structure(
            lambda ref: tf.zeros([2, 1, *_smallest(self.target.plan.shapes[ref])]),
            self.target.plan.outputs,
        )
        theta = self.target.flatten(weights)
        step = StepRecord(theta, drawn.z, drawn.codes, outputs, manifold_dim=self.manifold_dim)
        for term in new:
            term.attach(step)
            self._attached.add(id(term))

    def build_metrics(self, y: Any) -> None:
        """Make the variables of the compiled metrics, which a step in a replica cannot make.

        Args:
            y: Labels of a few examples.
        """
        size, plan = len(keras.tree.flatten(y)[0]), self.target.plan
        y_pred = keras.tree.map_structure(
            lambda ref: tf.zeros([size, *_smallest(plan.shapes[ref])]), plan.outputs
        )
        y = keras.tree.map_structure(
            lambda t: None if t is None else tf.convert_to_tensor(t), self._by_output(y)
        )
        if self.distribute_strategy.num_replicas_in_sync > 1:
            check_values(self._by_output(self._compiled_with["loss"]), y, y_pred)
        for model in (self, self._evaluation.member, self._evaluation.ensemble):
            build_metrics(model, y, y_pred)

    def _symbolic_build(self, iterator=None, data_batch=None):
        # What Keras calls before the first batch under a strategy; everything else is built.
        self.build_metrics(keras.utils.unpack_x_y_sample_weight(data_batch)[1])

    def _check_inputs(self, x: Any) -> None:
        """Check the shapes of arrays and data sets; what else Keras takes is checked in a step."""
        if isinstance(x, tf.data.Dataset):
            x = keras.utils.unpack_x_y_sample_weight(x.element_spec)[0]
        if all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
            self.target.check_inputs(x)

    def _check_labels(self, x: Any, y: Any) -> Any:
        """Check labels as far as they are in memory; returns some of them."""
        labels = some_labels(x, y)
        if self.compiled:
            in_memory = y is not None and all(
                isinstance(part, (np.ndarray, tf.Tensor)) or hasattr(part, "__array__")
                for part in keras.tree.flatten(y)
            )
            check_labels(self.loss, y if in_memory else labels, self.target)
        return labels

    def fit(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.fit`; see the class for what a batch is and what the history has.

        Raises:
            ValueError: The inputs do not have the shape that the target takes, or the labels are
                one-hot where the loss takes numbers of classes, or the reverse, or are not classes;
                also of the validation data.
        """
        self._assert_compile_called("fit")
        self._check_inputs(x)
        labels = self._check_labels(x, y)
        given = arguments_of_fit(x, y, *args, **kwargs)
        if self.target.statistics and self._keeps_inputs:
            some = some_inputs(trained_inputs(x, given))
            self._batch_norm_data = self._batch_norm_data if some is None else some
        if given.get("validation_data") is not None:  # now, rather than after the first epoch
            self._check_batch_norm_data()
            x_val, y_val, _ = keras.utils.unpack_x_y_sample_weight(given["validation_data"])
            self._check_inputs(x_val)
            self._check_labels(x_val, y_val)
        if not self.step.numpy():
            # Reading inputs needlessly would change the order of a shuffled data set.
            inputs = trained_inputs(x, given) if self.initializes_on_inputs else None
            some = None if inputs is None else some_inputs(inputs)
            self.initialize(some, verbose=int(given.get("verbose", "auto") in ("auto", 1)))
        if self.compiled and self._distribute_strategy is None and labels is not None:
            self.build_metrics(labels)  # a first step that makes variables would be traced twice
        return super().fit(x, y, *args, **kwargs)

    @property
    def batch_norm_data(self) -> Any:
        """Inputs on which the statistics of batch normalisation are computed; see the class."""
        return self._batch_norm_data

    @batch_norm_data.setter
    def batch_norm_data(self, x: Any) -> None:
        self._batch_norm_data = some_inputs(x) if is_data_set(x) else x
        self._keeps_inputs = x is None

    def train_step(self, data):
        """One step on N networks, or on a replica's share of them; see the class."""
        share = Share(self.num_networks)
        share.check(self.optimizer, self.target, self.loss)
        for term in self.trained_terms:
            share.check_clipping(term.optimizer)
        dealt = self._dealt(data, share)
        seed = stream_seed(self.seed, TRAIN, self.step.value)
        with tf.GradientTape() as tape:
            drawn, weights = self._draw_weights(
                seed, self.num_networks, share, training=True, in_gauge=self.trains_in_gauge
            )
            outputs, state = self._raw.run(weights, dealt.x, training=True, batch_statistics=True)
            if weights.trainable[0].shape[0] is not None:  # a loop makes new tensors of all state
                self.target.check_state(weights.state, state)
            y_pred = self._answers(dealt, outputs)
            y, sample_weight = dealt.labels()
            # Keras divides a mean by the number of replicas.
            loss = self.compute_loss(dealt.x, y, y_pred, sample_weight, training=True)
            accuracy_loss = share.replicas * loss
            record = self._step_record(weights, drawn, dealt, outputs, share)
            diversity_loss = tf.zeros([])
            if record is not None:
                with tape.stop_recording():
                    for term in self.trained_terms:
                        term.train(record, share.replicas)
                diversity_loss = self._sum_of_terms(record)
            lam = tf.identity(self.lam.value)  # before it grows
            others = diversity_loss + lam * self.regularization(drawn) + self.extra_loss(drawn)
            # A replica's gradient counts by its examples, as its losses do in their means.
            objective = lam * dealt.loss_weight * accuracy_loss + others
            # The optimizer sums gradients over replicas.
            scaled = self.optimizer.scale_loss(self.minimized(objective) / share.replicas)
        gradients = tape.gradient(scaled, self.generating_variables)
        self.optimizer.apply(gradients, self.generating_variables)
        self.step.assign(self.step + 1)
        self.lam.assign(self.lam * self.lam_growth)
        # As in Keras, a short last batch counts by its examples in the means of an epoch.
        reported = lam * accuracy_loss + others
        self._loss_tracker.update_state(reported, sample_weight=dealt.num_answers)
        self.accuracy_loss_tracker.update_state(accuracy_loss, sample_weight=dealt.num_answers)
        self.diversity_tracker.update_state(diversity_loss, sample_weight=dealt.num_answers)
        return self.compute_metrics(dealt.x, y, y_pred, sample_weight=sample_weight)

    def _dealt(self, data: Any, share: Share) -> Dealt:
        """A batch as the networks of a step get it."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        examples = x, self._by_output(y), self._by_output(sample_weight)
        if self.shared_inputs:
            return share.hand_out(*examples)
        return share.deal(*examples, equal=self.trains_networks)

    def _answers(self, dealt: Dealt, outputs: Any) -> Any:
        """The answers that count, [num_answers, ...], of raw outputs, with their Keras masks."""
        y_pred = self._activated(keras.tree.map_structure(dealt.collect, outputs))
        if not self.target.has_masks:
            return y_pred
        count = keras.tree.flatten(outputs)[0].shape[0]
        return with_masks(y_pred, dealt.masks(self.target, count))

    def _activated(self, outputs: Any) -> Any:
        """What the target returns, from outputs of `_raw`.

        Keras's functions say what they were given, of which Keras computes cross-entropies: those
        of probabilities that have rounded to 0 or 1 have no gradient.
        """
        functions = [function or tf.identity for function in self._activations]
        leaves = keras.tree.flatten(outputs)
        done = [function(leaf) for function, leaf in zip(functions, leaves, strict=True)]
        return keras.tree.pack_sequence_as(outputs, done)

    def _step_record(
        self, weights: WeightSet, drawn: Draw, dealt: Dealt, outputs: Any, share: Share
    ) -> StepRecord | None:
        """All N networks of the step, the same on each replica; None if no term needs them."""
        if not self._terms:
            return None

        def gathered(parts: Any) -> Any:
            return keras.tree.map_structure(share.gather, parts)

        theta = share.gather(self.target.flatten(weights))
        seed = stream_seed(self.seed, TERMS, self.step.value)
        record = StepRecord(
            theta,
            share.gather(drawn.z),
            gathered(drawn.codes),
            seed=seed,
            manifold_dim=self.manifold_dim,
        )
        if any(term.uses_outputs for term in self._terms):
            inputs = keras.tree.flatten(dealt.x)[0]
            if self.shared_inputs:
                size, images = tf.shape(inputs)[0], dealt.x
                labels = map_tensors(lambda t: t[:size], dealt.y)
            else:
                # All networks see the images of the first one.
                size = tf.shape(inputs)[1]
                images = keras.tree.map_structure(lambda tensor: share.first(tensor[0]), dealt.x)
                outputs, _ = self._raw.run(weights, images, training=True, batch_statistics=True)
                labels = map_tensors(lambda t: share.first(t[:size]), dealt.y)
            outputs = self._activated(
                keras.tree.map_structure(lambda t: tf.cast(t, self.variable_dtype), outputs)
            )
            outputs = self._seen_by_loss(outputs, self.target.output_masks(images))
            record = record._replace(outputs=gathered(outputs), y=labels)
        return record

    def _seen_by_loss(self, outputs: Any, masks: Any) -> Any:
        """Outputs [N, B, ...] without what no loss sees: means of logits, and padding.

        Args:
            outputs: Outputs of all networks on the same inputs.
            masks: Masks [B, ...] of these outputs; None for an output without one.
        """
        seen = []
        pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(masks), strict=True)
        for values, mask in pairs:
            values = values if self._sees_mean else self.target.centred(values)
            if mask is not None:
                mask = mask[(None, ..., *[None] * (values.shape.rank - 1 - mask.shape.rank))]
                values = tf.where(mask, values, tf.zeros([], values.dtype))
            seen.append(values)
        return keras.tree.pack_sequence_as(outputs, seen)

    def _sum_of_terms(self, record: StepRecord) -> tf.Tensor:
        return sum((term(record) for term in self._terms), tf.zeros([]))

    # ---- prediction -----------------------------------------------------------------------

    def prediction_networks(self) -> Ensemble:
        """The networks behind `predict`, `evaluate` and a call.

        They are `sample(10, seed=0)`, or all networks of a finite sampler; more than 10 if a
        diversity term needs them.

        Raises:
            ValueError: The target has batch normalisation, and there is no data for its statistics.
        """
        return self._ensemble(None, 0)

    @property
    def _num_prediction_networks(self) -> int:
        """All of a finite sampler; otherwise 10, or more if a term needs them."""
        fewest = [PREDICTION_NETWORKS, *(term.min_networks for term in self._terms)]
        return self.num_available or max(fewest)

    def _check_batch_norm_data(self) -> None:
        if self.target.statistics and self.batch_norm_data is None:
            raise ValueError(
                "The target has batch normalisation, whose statistics have not been computed: set "
                "sampler.batch_norm_data = x_train[:1000] first."
            )

    def call(self, inputs, training=False):
        """The mean prediction of the networks of `prediction_networks`; see `predict`.

        `training` has no effect: for dropout in predictions use `hn.MCDropout`.
        """
        self._check_batch_norm_data()
        # Batch norm's statistics are computed eagerly; a graph keeps those of when it was traced.
        with tf.init_scope() if self.target.statistics else contextlib.nullcontext():
            # Not by a graph of before, which would not see the values of a `keras.StatelessScope`,
            # or would keep them.
            _, weights = self._draw_weights(
                self.sampling_seed(0), self._num_prediction_networks, in_gauge=self._draws_in_gauge
            )
            weights = self._finished(weights).weights
        outputs, _ = self.target.run(weights, inputs)
        return keras.tree.map_structure(
            lambda t: tf.reduce_mean(self.target.activate(t), 0), outputs
        )

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        steps: int | None = None,
        callbacks: Any = None,
        *,
        num_networks: int | None = None,
        seed: int = 0,
    ) -> Any:
        """The mean prediction of an ensemble: `sample(num_networks, seed=seed).predict(x)`.

        Args:
            x: Inputs [M, ...]; or a `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator, of
                whose batches x, (x,), (x, y) or (x, y, sample_weight) the inputs are used.
            batch_size: Number of images run at once; None chooses.
            verbose: 1 shows a progress bar.
            steps: Number of batches; None for all.
            callbacks: Keras callbacks, for which a prediction is one batch.
            num_networks: Number of networks; None for 10, or all of a finite sampler.
            seed: Seed of the draw.

        Returns:
            Mean probabilities [M, ...], or mean values.
        """
        shown = int(verbose == 1)
        if isinstance(x, types.GeneratorType) or (steps is not None and is_data_set(x)):
            x = SomeBatches(x, steps)
        elif steps is not None:  # as in Keras, whose batches have 32 examples
            x = keras.tree.map_structure(lambda t: t[: steps * (batch_size or 32)], x)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(callbacks, model=self)
        callbacks.on_predict_begin()  # which may take averaged weights
        ensemble = self._ensemble(num_networks, seed, shown)
        callbacks.on_predict_batch_begin(0)
        outputs = ensemble.predict(x, batch_size=batch_size, verbose=shown)
        callbacks.on_predict_batch_end(0, {"outputs": outputs})
        callbacks.on_predict_end()
        return outputs

    def _ensemble(self, num_networks: int | None, seed: int, verbose: int = 0) -> Ensemble:
        """Networks for predictions; None for 10, or all of a finite sampler."""
        self._check_batch_norm_data()
        if num_networks is None:
            num_networks = self._num_prediction_networks
        return self.sample(num_networks, seed=seed, verbose=verbose)

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose: int | None = None,
        *,
        num_networks: int | None = None,
        seed: int = 0,
    ) -> None:
        """Write an ensemble as a SavedModel: `sample(num_networks, seed=seed).export(filepath)`.

        It returns mean probabilities and scores of uncertainty, see `Ensemble.export`. Files of
        other formats hold one network: `sample(1).to_keras().export(path, format="litert")`.

        Args:
            filepath: Folder of the SavedModel; what it holds is replaced.
            format: "tf_saved_model".
            verbose: Has no effect.
            num_networks: Number of networks; None for 10, or all of a finite sampler.
            seed: Seed of the draw.

        Raises:
            ValueError: Another format; the target has batch normalisation, and there is no data for
                its statistics; or a finite sampler holds fewer networks.

        Example:
            >>> sampler.export("models/digits/1", num_networks=50)
        """
        if format != "tf_saved_model":
            raise ValueError(
                f"Cannot write an ensemble as {format!r}: write one network, "
                f"sample(1).to_keras().export(path, format={format!r})."
            )
        self._ensemble(num_networks, seed).export(filepath)

    def predict_on_batch(self, x: Any) -> Any:
        """As `predict(x)`."""
        return self.predict(x)

    # ---- evaluation -----------------------------------------------------------------------

    @contextlib.contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        """Until the end, results are those of an evaluation, which draws when it resets them."""
        self._assert_compile_called("evaluate")
        self._check_batch_norm_data()
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """As `keras.Model.evaluate`; see the class for what it returns.

        Returns:
            A list of numbers in the order `loss`, `member_...`, `ensemble_...`; with `return_dict`
            a dict by these names.

        Raises:
            ValueError: The inputs do not have the shape that the target takes, the loss does not
                take the labels, or there are no examples.
        """
        self._check_inputs(x)
        self._check_labels(x, y)
        with self._evaluation_mode():
            results = super().evaluate(
                x,
                y,
                batch_size,
                verbose,
                sample_weight,
                steps,
                callbacks,
                return_dict=True,
                **kwargs,
            )
        if not results and "_use_cached_eval_dataset" not in kwargs:  # where `fit` asks, it goes on
            raise ValueError("There are no examples to evaluate.")
        return results if return_dict else [results[name] for name in self._evaluation.results()]

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """As `keras.Model.test_on_batch`; it returns what `evaluate` does."""
        with self._evaluation_mode():
            results = super().test_on_batch(x, y, sample_weight, return_dict=True)
        return results if return_dict else [results[name] for name in self._evaluation.results()]

    def test_step(self, data):
        """The losses and metrics of one batch; every evaluated network sees all its images."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y, sample_weight = self._by_output(y), self._by_output(sample_weight)
        drawn, weights = self._evaluation.networks.read()
        # One after the other: a batch is as large as the user makes it for one network.
        outputs, _ = self._raw.run_each(weights, x)
        outputs = keras.tree.map_structure(lambda t: tf.cast(t, self.variable_dtype), outputs)
        count = weights.trainable[0].shape[0]

        masks = self.target.output_masks(x)
        member_loss = self._evaluation.member.update(
            repeat_for_networks(y, count),
            with_masks(self._activated(merge_networks(outputs)), repeat_for_networks(masks, count)),
            repeat_for_networks(sample_weight, count),
        )
        mean = with_masks(self._mean_outputs(outputs), masks)
        self._evaluation.ensemble.update(y, mean, sample_weight)
        # The terms see the weights that they see in training.
        trained = weights if self.trains_in_gauge else WeightSet(drawn.trainable, weights.state)
        theta, seed = self.target.flatten(trained), stream_seed(self.seed, TERMS, 0)
        record = StepRecord(theta, drawn.z, drawn.codes, seed=seed, manifold_dim=self.manifold_dim)
        if any(term.uses_outputs for term in self._terms):
            seen = self._seen_by_loss(self._activated(outputs), masks)
            record = record._replace(outputs=seen, y=y)
        others = self._sum_of_terms(record) + self.extra_loss(drawn)
        objective = self.lam * (member_loss + self.regularization(drawn)) + others
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        self._evaluation.objective.update_state(objective, sample_weight=size)
        return self.get_metrics_result()

    def _mean_outputs(self, outputs: Any) -> Any:
        """The mean prediction of raw outputs [N, M, ...] in the form of outputs.

        Logits stay logits, and probabilities know theirs, see `_activated`.
        """
        logits, labels = (self.target.outputs == kind for kind in ("logits", "label_logits"))
        means = []
        for function, leaf in zip(self._activations, keras.tree.flatten(outputs), strict=True):
            one_column = leaf.shape[-1:] == (1,)
            if function is keras.activations.sigmoid or labels or (logits and one_column):
                odds = [tf.reduce_logsumexp(tf.math.log_sigmoid(x), 0) for x in (leaf, -leaf)]
                means.append(odds[0] - odds[1])
            elif function is keras.activations.softmax or logits:
                log_p = tf.reduce_logsumexp(tf.nn.log_softmax(leaf), 0)
                means.append(log_p - tf.math.log(tf.cast(tf.shape(leaf)[0], log_p.dtype)))
                if self._sees_mean:  # of logits, which log-probabilities do not have
                    level = tf.reduce_logsumexp(leaf, -1, keepdims=True)
                    means[-1] += tf.reduce_mean(level, 0)
            else:
                means.append(tf.reduce_mean(leaf, 0))
        return self._activated(keras.tree.pack_sequence_as(outputs, means))

    def reset_metrics(self):
        """Reset the results of training; during an evaluation its own, for networks drawn anew."""
        if self._evaluating:
            self._evaluation.reset()
            # Here callbacks have begun the evaluation: one may have swapped averaged weights in.
            self._check_batch_norm_data()
            drawn, weights = self._traced_draw(
                self.sampling_seed(0), self._num_prediction_networks, in_gauge=self._draws_in_gauge
            )
            if self._evaluation.networks.assign(drawn, self._finished(weights).weights):
                self.make_test_function(force=True)  # the graph of before reads other variables
        else:
            super().reset_metrics()

    def get_metrics_result(self):
        """The results of training; during an evaluation, those of the evaluation."""
        return self._evaluation.results() if self._evaluating else super().get_metrics_result()

    # ---- serialisation --------------------------------------------------------------------

    def get_config(self) -> dict:
        """The arguments of the constructor, and what they were before the loss was known."""
        given = {"outputs": self._given_target.outputs, "gauge": self._given_gauge}
        told = given != {"outputs": self.target.outputs, "gauge": self._gauge_options}
        return super().get_config() | {
            "target": keras.saving.serialize_keras_object(self.target),
            "num_networks": self.num_networks,
            "lam": self._initial_lam,
            "lam_growth": self.lam_growth,
            "diversity": [keras.saving.serialize_keras_object(t) for t in self.diversity],
            "prior_scale": self.prior_scale,
            "gauge": self._gauge_options,
            "gauge_epsilon": self.gauge_epsilon,
            "shared_inputs": self.shared_inputs,
            "seed": self.seed,
            **({"before_compile": given} if told else {}),
        }

    @classmethod
    def from_config(cls, config: dict) -> WeightSampler:
        """A sampler from `get_config`."""
        config = dict(config)
        for name in {"target", "diversity"} & config.keys():
            config[name] = keras.saving.deserialize_keras_object(config[name])
        before = config.pop("before_compile", None)
        sampler = cls(**config)
        if before:  # another loss may tell something else
            sampler._given_target = sampler.target.with_outputs(before["outputs"])
            sampler._given_gauge = before["gauge"]
        return sampler

    def get_weights(self) -> list:
        """As `keras.Layer.get_weights`, and the values of the target's frozen layers after them."""
        return super().get_weights() + [variable.numpy() for variable in self.target.frozen]

    def set_weights(self, weights: list) -> None:
        """Take what `get_weights` returned; other samplers of the same `Target` get frozen values.

        Raises:
            ValueError: They are not as many, or have other shapes.
        """
        frozen = self.target.frozen
        count = len(weights) - len(frozen)
        super().set_weights(weights[:count])
        for variable, value in zip(frozen, weights[count:], strict=True):
            variable.assign(value)

    def save_own_variables(self, store):
        """Save variables, the values of the target's frozen layers, and `batch_norm_data`."""
        self.build_terms()
        super().save_own_variables(store)
        for index, value in enumerate(self.target.frozen):
            store[f"target_{index}"] = value.numpy()
        inputs = keras.tree.flatten(self.batch_norm_data)
        words = any(np.asarray(part).dtype.kind in "OSU" for part in inputs)
        # Words cannot be in such a file: a loaded sampler asks for its inputs again.
        if self.target.statistics and self.batch_norm_data is not None and not words:
            # A dict flattens in the order of its keys, and is packed in that of the model's inputs.
            for index, part in enumerate(self.target.inputs_in_order(self.batch_norm_data)):
                store[f"batch_norm_data_{index}"] = np.asarray(part)
            store["keeps_inputs"] = np.array(self._keeps_inputs)

    def load_own_variables(self, store):
        """Load what `save_own_variables` saved."""
        self.build_terms()
        values = {name: store[name] for name in store.keys()}  # noqa: SIM118 (not iterable)
        for index, variable in enumerate(self.target.frozen):
            variable.assign(values.pop(f"target_{index}"))
        names = sorted(
            (name for name in values if name.startswith("batch_norm_data_")),
            key=lambda name: int(name.rpartition("_")[2]),
        )
        if names:
            inputs = [np.asarray(values.pop(name)) for name in names]
            self._batch_norm_data = keras.tree.pack_sequence_as(self.target.plan.inputs, inputs)
        self._keeps_inputs = bool(values.pop("keeps_inputs", self._keeps_inputs))
        super().load_own_variables(values)


def _smallest(shape: tuple) -> list[int]:
    """A shape whose open sizes are 1."""
    return [1 if size is None else size for size in shape]
