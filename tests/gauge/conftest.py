"""What all tests of the gauge share."""

import keras
import pytest


@pytest.fixture(autouse=True)
def float64():
    """Layers compute with 53 bits, so that equal means equal to 1e-9 (1e-7 after normalisation)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)
