"""Searching hyperparameters with Keras Tuner: any of its tuners, any sampler, any target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras_tuner

from hypernet_tf.ensembles.ensemble import Ensemble, Evaluation, RegressionEvaluation
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.training.callbacks import ensemble_entropy

# What can be searched for, and which way is better. The first eight are of classes, the last two of
# values; entropy is of both.
DIRECTIONS = {
    "member_accuracy": "max",
    "ensemble_accuracy": "max",
    "mean_probability_accuracy": "max",
    "most_confident_accuracy": "max",
    "negative_log_likelihood": "min",
    "expected_calibration_error": "min",
    "adaptive_calibration_error": "min",
    "brier_score": "min",
    "entropy": "max",
    "member_mean_squared_error": "min",
    "mean_squared_error": "min",
}


def objective(name: str) -> keras_tuner.Objective:
    """What a tuner optimises, in the right direction.

    Args:
        name: one of `ensemble_metrics`.

    Raises:
        ValueError: there is no such metric.

    Example:
        >>> keras_tuner.RandomSearch(model, objective("negative_log_likelihood"), max_trials=20)
    """
    if name not in DIRECTIONS:
        raise ValueError(f"there is no objective '{name}': there are {', '.join(DIRECTIONS)}")
    return keras_tuner.Objective(name, DIRECTIONS[name])


def ensemble_metrics(
    result: Evaluation | RegressionEvaluation, entropy: float | None
) -> dict[str, float]:
    """An ensemble's evaluation as one number per name, as tuners want it.

    Args:
        result: what `Ensemble.evaluate` returned. `member_accuracy` is the mean over networks,
            `ensemble_accuracy` that of the majority vote; the others are named as there.
        entropy: of the networks' weights, in nats; left out where it is None.
    """
    if isinstance(result, RegressionEvaluation):
        found = {
            "member_mean_squared_error": float(result.member_mean_squared_error.mean()),
            "mean_squared_error": result.mean_squared_error,
            "standard_deviation": result.standard_deviation,
        }
    else:
        found = {
            "member_accuracy": float(result.member_accuracy.mean()),
            "ensemble_accuracy": result.majority_vote_accuracy,
            "mean_probability_accuracy": result.mean_probability_accuracy,
            "most_confident_accuracy": result.most_confident_accuracy,
            "negative_log_likelihood": result.negative_log_likelihood,
            "expected_calibration_error": result.expected_calibration_error,
            "adaptive_calibration_error": result.adaptive_calibration_error,
            "brier_score": result.brier_score,
        }
    return found | ({} if entropy is None else {"entropy": entropy})


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
        ...     model, objective("ensemble_accuracy"), max_trials=10, directory="runs"
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
