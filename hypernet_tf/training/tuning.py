"""Searching hyperparameters with Keras Tuner: any of its tuners, any sampler, any target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras_tuner

from hypernet_tf.ensembles.ensemble import Ensemble, Evaluation
from hypernet_tf.metrics.measures import MEASURES
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.training.callbacks import ensemble_entropy


def objective(key: str) -> keras_tuner.Objective:
    """The objective of a tuner that optimises a measure, in the direction of the table of measures.

    Args:
        key: Key of a measure that `Evaluation.summary` has, or "entropy".

    Raises:
        ValueError: There is no such measure, or neither direction is better.

    Example:
        >>> keras_tuner.RandomSearch(model, objective("negative_log_likelihood"), max_trials=20)
    """
    directions = {"higher": "max", "lower": "min"}
    objectives = {
        measure.key: directions[measure.better]
        for measure in MEASURES.values()
        if measure.better in directions and (measure.compute or measure.key == "entropy")
    }
    if key not in objectives:
        raise ValueError(f"there is no objective '{key}': choose one of {', '.join(objectives)}")
    return keras_tuner.Objective(key, objectives[key])


def ensemble_metrics(result: Evaluation, entropy: float | None) -> dict[str, float]:
    """The metrics of a trial: every measure of an ensemble that has a value, by its key.

    Args:
        result: Evaluation of the ensemble.
        entropy: Entropy of the networks' weights in nats, or None.
    """
    metrics = result.summary() | {"entropy": entropy}
    return {key: value for key, value in metrics.items() if value is not None}


class SamplerHyperModel(keras_tuner.HyperModel):
    """Trains a weight sampler with the hyperparameters of a trial and scores its ensemble.

    Every tuner of Keras Tuner takes it. What `tuner.search` is given goes to the sampler's `fit`,
    callbacks included. Then an ensemble is sampled and evaluated on the validation data: the
    trial's metrics are those of `ensemble_metrics`, after the last epoch.

    Args:
        make: hyperparameters -> a compiled `WeightSampler`.
        validation: (x, y), which no trial trains on.
        num_networks: how many networks the ensemble has; of a finite sampler at most all that it has.
        batch_norm_data: inputs [M, ...] on which the statistics of batch normalisation are computed,
            typically those of training. Only targets with batch normalisation need them.
        seed: which networks are sampled.

    Raises:
        FatalValueError: in a trial: the target has batch normalisation, and nothing to compute its
            statistics on was given.

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
        validation: tuple[Any, Any],
        num_networks: int = 100,
        batch_norm_data: Any = None,
        seed: int = 0,
    ):
        super().__init__()
        self.make = make
        self.validation = validation
        self.num_networks = num_networks
        self.batch_norm_data = batch_norm_data
        self.seed = seed

    def build(self, hp):
        """The sampler of a trial."""
        return self.make(hp)

    def fit(self, hp, model, *args, **kwargs):
        """Train as `model.fit` does, then evaluate an ensemble.

        Returns:
            What `ensemble_metrics` says of it.
        """
        if model.target.statistics and self.batch_norm_data is None:
            raise keras_tuner.errors.FatalValueError(
                "the target has batch normalisation: SamplerHyperModel(batch_norm_data=x_train) says "
                "what its statistics are computed on"
            )
        model.fit(*args, **kwargs)
        ensemble = self._ensemble(model)
        result = ensemble.evaluate(*self.validation)
        return ensemble_metrics(result, ensemble_entropy(ensemble, model))

    def _ensemble(self, model: WeightSampler) -> Ensemble:
        count = min(self.num_networks, model.num_available or self.num_networks)
        ensemble = model.sample(count, seed=self.seed)
        return (
            ensemble
            if self.batch_norm_data is None
            else ensemble.update_batch_norm(self.batch_norm_data)
        )
