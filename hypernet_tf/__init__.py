"""Deep networks whose weights are generated: sample, train, evaluate.

A weight sampler turns random numbers into the complete weights of N networks; a target, any Keras
model, runs all N at once; everything else takes weights and never asks which sampler made them.
"""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"hypernet_tf needs Keras on TensorFlow, not on {keras.backend.backend()}: "
        "set KERAS_BACKEND=tensorflow"
    )

from hypernet_tf import analysis, data, diversity, metrics
from hypernet_tf.analysis import distill
from hypernet_tf.ensembles import Ensemble, Evaluation
from hypernet_tf.gauge import Gauge
from hypernet_tf.metrics import OODMetrics, Uncertainty, ood_metrics
from hypernet_tf.pretrained import load_pretrained
from hypernet_tf.samplers.apd import APD
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.bhn import BHN
from hypernet_tf.samplers.deep_ensemble import DeepEnsemble
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.hypergan.hypergan import HyperGAN
from hypernet_tf.samplers.hypernetwork.hypernetwork import Hypernetwork
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.samplers.mc_dropout import MCDropout
from hypernet_tf.samplers.mixture import Mixture
from hypernet_tf.samplers.mnf.mnf import MNF
from hypernet_tf.samplers.noise_control import NoiseControl
from hypernet_tf.samplers.sgd_chains import SGLD, SGDChains
from hypernet_tf.targets import (
    KernelAxes,
    Target,
    TargetLayer,
    Value,
    WeightSet,
    per_network,
    register_layer,
    zoo,
)
from hypernet_tf.training.stopping import DiversityStopping

__version__ = "0.2.0"

__all__ = [
    "APD",
    "BHN",
    "MNF",
    "SGLD",
    "DeepEnsemble",
    "DiversityStopping",
    "Draw",
    "Ensemble",
    "Evaluation",
    "Gauge",
    "HyperGAN",
    "Hypernetwork",
    "KernelAxes",
    "LatentSampler",
    "MCDropout",
    "Mixture",
    "NoiseControl",
    "OODMetrics",
    "SGDChains",
    "Target",
    "TargetLayer",
    "Uncertainty",
    "Value",
    "WeightSampler",
    "WeightSet",
    "analysis",
    "data",
    "distill",
    "diversity",
    "load_pretrained",
    "metrics",
    "ood_metrics",
    "per_network",
    "register_layer",
    "zoo",
]
