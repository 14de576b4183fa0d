"""Figures: each function takes arrays and returns a matplotlib figure.

Figures are 7 inches wide, with text of at least 8 points, on white. Lines differ by dash pattern
and marker, and shades by lightness, so that figures can be read in grey print.
"""

from hypernet_tf.plots.comparison import comparison
from hypernet_tf.plots.frontier import frontier
from hypernet_tf.plots.networks import (
    accuracy_histogram,
    attack_curves,
    curves_by_size,
    ensemble_sizes,
    ensembles,
    filter_diversity,
    filter_grids,
    learning_curves,
    paths,
    scatter_matrix,
    success_curves,
    training_curves,
    weight_histograms,
)
from hypernet_tf.plots.regression import predictions
from hypernet_tf.plots.style import new_figure
from hypernet_tf.plots.uncertainty import (
    examples,
    reliability_diagram,
    risk_coverage,
    roc_curves,
    score_distributions,
)
from hypernet_tf.plots.validation import confusion, filter_table

__all__ = [
    "accuracy_histogram",
    "attack_curves",
    "comparison",
    "confusion",
    "curves_by_size",
    "ensemble_sizes",
    "ensembles",
    "examples",
    "filter_diversity",
    "filter_grids",
    "filter_table",
    "frontier",
    "learning_curves",
    "new_figure",
    "paths",
    "predictions",
    "reliability_diagram",
    "risk_coverage",
    "roc_curves",
    "scatter_matrix",
    "score_distributions",
    "success_curves",
    "training_curves",
    "weight_histograms",
]
