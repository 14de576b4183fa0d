"""What all tests share: a seed, small targets, no network."""

import gc

import keras
import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def imported_objects_are_kept():
    """What is imported by now stays: clearing Keras's state after each test collects garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same global seeds, and leaves no Keras state behind."""
    keras.utils.set_random_seed(1234)
    yield
    keras.backend.clear_session()


@pytest.fixture
def blobs():
    """Three well separated classes in the plane: x [96, 2], y [96]."""
    rng = np.random.default_rng(0)
    y = np.arange(96) % 3
    centres = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    return (centres[y] + 0.3 * rng.normal(size=(96, 2))).astype("float32"), y
