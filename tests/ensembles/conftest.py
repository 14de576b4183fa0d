"""Ensembles that the tests of this folder share."""

import keras
import numpy as np
import pytest
from small_ensembles import CLASSIFIERS, EXAMPLES, MODELS, Case

import hypernet_tf as hn


@pytest.fixture(scope="session")
def x():
    return np.random.default_rng(0).normal(size=(EXAMPLES, 6, 6, 1)).astype("float32")


@pytest.fixture(scope="session")
def cases(x):
    return {kind: Case(kind, x) for kind in MODELS}


@pytest.fixture(params=MODELS)
def case(request, cases):
    return cases[request.param]


@pytest.fixture(params=CLASSIFIERS)
def classifier(request, cases):
    return cases[request.param]


@pytest.fixture
def runs(monkeypatch):
    """Number of networks and of examples of each graph that is traced."""
    seen = []
    run = hn.Target.run

    def spy(self, weights, inputs, **kwargs):
        examples = keras.tree.flatten(inputs)[0].shape[0]
        seen.append((weights.trainable[0].shape[0], examples))
        return run(self, weights, inputs, **kwargs)

    monkeypatch.setattr(hn.Target, "run", spy)
    return seen
