"""Networks as an ensemble: their gauge and batch norm's statistics, in the right order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.targets import WeightSet


def calibrated(sampler: Any, draw: Callable[..., WeightSet]) -> Ensemble:
    """What a sampler draws, with statistics if it has images to compute them on.

    Networks that were trained out of the gauge get their statistics out of it as well. A gauge that
    comes afterwards is exact; one before would be so up to the epsilon of batch normalisation.

    Args:
        sampler: a `WeightSampler`.
        draw: gives its networks, as draw(fix=whether in the gauge).

    Returns:
        An ensemble in the gauge.
    """
    if sampler.calibration is None or not sampler.target.statistics:
        return Ensemble(sampler.target, draw(fix=True))
    ensemble = Ensemble(sampler.target, draw(fix=sampler.trains_in_gauge))
    ensemble = ensemble.calibrate(sampler.calibration)
    if sampler.trains_in_gauge:
        return ensemble
    return Ensemble(sampler.target, sampler.gauge(ensemble.weights), calibrated=True)
