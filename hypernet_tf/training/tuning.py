"""Hyperparameter search with Keras Tuner: any of its tuners, any sampler, any target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner
from keras_tuner.src.engine.tuner_utils import SaveBestEpoch

from hypernet_tf.ensembles.ensemble import Evaluation
from hypernet_tf.ensembles.examples import is_data_set
from hypernet_tf.metrics.measures import MEASURES
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.weight_measures import weight_measures


def objective(key: str) -> keras_tuner.Objective:
    """The objective of a tuner that optimises a measure, in the direction of the table of measures.

    Args:
        key: Key of a measure of predictions or of weights.

    Raises:
        ValueError: There is no such measure, or neither direction is better.

    Example:
        >>> keras_tuner.RandomSearch(model, objective("negative_log_likelihood"), max_trials=20)
    """
    directions = {"higher": "max", "lower": "min"}
    objectives = {
        measure.key: directions[measure.better]
        for measure in MEASURES.values()
        if measure.better in directions and measure.compute
    }
    if key not in objectives:
        raise ValueError(f"Unknown objective '{key}': choose one of {', '.join(objectives)}.")
    return keras_tuner.Objective(key, objectives[key])


def ensemble_metrics(
    result: Evaluation, of_weights: Mapping[str, float | None]
) -> dict[str, float]:
    """The metrics of a trial: every measure of an ensemble that has a value, by its key.

    Args:
        result: Evaluation of the ensemble.
        of_weights: The measures of its weights, see `weight_measures`.
    """
    metrics = result.summary() | dict(of_weights)
    return {key: value for key, value in metrics.items() if value is not None}


class SamplerHyperModel(keras_tuner.HyperModel):
    """Trains a weight sampler with the hyperparameters of a trial and scores its ensemble.

    It works with every tuner of Keras Tuner. The arguments of `tuner.search` go to the sampler's
    `fit`, callbacks included. Then an ensemble is sampled and evaluated on the validation data; its
    measures (`ensemble_metrics`) after the last epoch are the metrics of the trial.

    Args:
        make: Function of the hyperparameters that returns a compiled `WeightSampler`.
        validation: What `ensemble.evaluate` takes and no trial trains on: (x, y),
            (x, y, sample_weight), or a data set of such batches.
        num_networks: Number of networks of the ensemble; of a finite sampler at most all that it
            holds.
        batch_norm_data: Inputs [M, ...] on which the statistics of batch normalisation are
            computed; None for the training inputs that `fit` keeps.
        seed: Seed of the sampled networks.

    Raises:
        FatalValueError: In a trial, if the target has batch normalisation, and neither
            `batch_norm_data` was given nor could `fit` keep training inputs.

    Example:
        >>> def make(hp):
        ...     hyper = hn.Hypernetwork(target, lam=hp.Float("lam", 10, 1e5, sampling="log"))
        ...     hyper.compile("adam", loss)
        ...     return hyper
        >>> model = SamplerHyperModel(make, validation=(x_validation, y_validation))
        >>> tuner = keras_tuner.BayesianOptimization(
        ...     model, objective("majority_vote_accuracy"), max_trials=10, directory="runs"
        ... )
        >>> tuner.search(x_train, y_train, epochs=20, batch_size=512)
        >>> tuner.get_best_hyperparameters()[0]["lam"]
        >>> tuner.get_best_models()[0].sample(200)

    Reference:
        O'Malley et al., KerasTuner, 2019.
    """

    def __init__(
        self,
        make: Callable[[keras_tuner.HyperParameters], WeightSampler],
        *,
        validation: Any,
        num_networks: int = 100,
        batch_norm_data: Any = None,
        seed: int = 0,
    ):
        super().__init__()
        self.make = make
        is_tuple = isinstance(validation, tuple | list) and len(validation) in (2, 3)
        if not (is_tuple or is_data_set(validation)):
            raise ValueError("validation is (x, y), (x, y, sample_weight), or a data set of them.")
        x, *labels = validation if is_tuple else (validation,)
        names = ("y", "sample_weight")
        self.validation = x, dict(zip(names, labels, strict=False))
        self.num_networks = num_networks
        self.batch_norm_data = batch_norm_data
        self.seed = seed

    def build(self, hp):
        """The sampler of a trial."""
        return self.make(hp)

    def fit(self, hp, model, *args, **kwargs):
        """Train as `model.fit` does, then evaluate an ensemble.

        Returns:
            The metrics of `ensemble_metrics`.
        """
        if self.batch_norm_data is not None:
            model.batch_norm_data = self.batch_norm_data
        model.fit(*args, **kwargs)
        if model.target.statistics and model.batch_norm_data is None:
            raise keras_tuner.errors.FatalValueError(
                "The target has batch normalisation, whose statistics need inputs: give "
                "SamplerHyperModel(batch_norm_data=x_train[:1000])."
            )
        count = model.at_most(self.num_networks)
        ensemble = model.sample(count, seed=self.seed)
        x, labels = self.validation
        result = ensemble.evaluate(x, **labels)
        for callback in kwargs.get("callbacks") or ():
            # It saved an epoch before the end, where `fit` restores or averages weights.
            if isinstance(callback, SaveBestEpoch):
                callback._save_model()
        return ensemble_metrics(result, weight_measures(ensemble, model))
