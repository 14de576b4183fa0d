"""Sampler-agnostic analyses: functions of an ensemble, or of a function that samples one."""

from hypernet_tf.analysis.attacks import (
    AdversarialSuccess,
    AttackDetection,
    NothingToAttackError,
    adversarial_success,
    attack_detection,
    fast_gradient_method,
    projected_gradient,
)
from hypernet_tf.analysis.distillation import distill
from hypernet_tf.analysis.filters import (
    FilterDiversity,
    LayerPictures,
    filter_diversity,
    filter_pictures,
    layer_pictures,
)
from hypernet_tf.analysis.paths import direct_path, interpolated_path
from hypernet_tf.analysis.pca import (
    Components,
    principal_components,
    spanned_coordinates,
    weight_views,
)
from hypernet_tf.analysis.posteriors import SingleWeight, single_weights

__all__ = [
    "AdversarialSuccess",
    "AttackDetection",
    "Components",
    "FilterDiversity",
    "LayerPictures",
    "NothingToAttackError",
    "SingleWeight",
    "adversarial_success",
    "attack_detection",
    "direct_path",
    "distill",
    "fast_gradient_method",
    "filter_diversity",
    "filter_pictures",
    "interpolated_path",
    "layer_pictures",
    "principal_components",
    "projected_gradient",
    "single_weights",
    "spanned_coordinates",
    "weight_views",
]
