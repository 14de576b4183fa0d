"""Ensembles of networks: running, evaluating, calibrating and saving them."""

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.ensembles.evaluation import Evaluation

__all__ = ["Ensemble", "Evaluation"]
