"""Random predictions for the tests of metrics."""

import inspect

import numpy as np
from hypothesis import strategies as st
from scipy.special import log_softmax


@st.composite
def ensemble_predictions(draw, min_networks=1, least_examples=1):
    """Log-probabilities [N, M, C] in float32 or float64, and labels [M]."""
    num_networks = draw(st.integers(min_networks, 7))
    num_examples, num_classes = draw(st.integers(least_examples, 12)), draw(st.integers(2, 5))
    sharpness = draw(st.sampled_from((0.1, 1.0, 5.0)))
    dtype = draw(st.sampled_from((np.float32, np.float64)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = sharpness * rng.normal(size=(num_networks, num_examples, num_classes))
    labels = rng.integers(0, num_classes, num_examples)
    return log_softmax(logits, -1).astype(dtype), labels


def functions_of(module):
    """Names of the public functions that a module defines."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
