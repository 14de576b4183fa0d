"""Where networks lie in the space of weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble


class Components(NamedTuple):
    """Principal components of N weight vectors.

    Attributes:
        coordinates: [N, c], each network's, most variance first.
        explained: [c], the share of the variance that each component has.
        explained_if_independent: the same of weights that vary independently of each other: every
            column of the data shuffled over the networks. More than this is structure.
    """

    coordinates: np.ndarray
    explained: np.ndarray
    explained_if_independent: np.ndarray


def principal_components(vectors: np.ndarray, components: int = 6, *, seed: int = 0) -> Components:
    """Principal component analysis of weights (Deutsch et al. 2019, section 4.1, "Scatter").

    Args:
        vectors: [N, K], some weights of each of N networks.
        components: c, at most; K where it is less.
        seed: of the shuffling, and of scikit-learn's randomised solver.

    Raises:
        ValueError: not more networks than components.

    Source: `sklearn.decomposition.PCA`.
    """
    from sklearn.decomposition import PCA  # takes seconds: only for those who use it

    components = min(components, vectors.shape[1])
    if len(vectors) <= components:
        raise ValueError(
            f"{components} principal components need at least {components + 1} networks, not "
            f"{len(vectors)}"
        )
    pca = PCA(components, random_state=seed)
    coordinates = pca.fit_transform(vectors)
    shuffled = np.random.default_rng(seed).permuted(vectors, axis=0)
    independent = PCA(components, random_state=seed).fit(shuffled)
    return Components(
        coordinates, pca.explained_variance_ratio_, independent.explained_variance_ratio_
    )


def spanned_coordinates(vectors: np.ndarray) -> np.ndarray:
    """N vectors in coordinates of the space that they span, [N, min(N - 1, K)].

    All their principal components, most variance first, and so a rotation that keeps every
    distance: a small table of a few vectors of millions of weights, with nothing lost.

    Args:
        vectors: [N, K].

    Example:
        >>> np.abs(spanned_coordinates(np.array([[0.0, 0.0, 5.0], [3.0, 4.0, 5.0]])))
        array([[2.5],
               [2.5]])
    """
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    variances, directions = np.linalg.eigh(centred @ centred.T)  # [N, N], as K may be large
    coordinates = directions * np.sqrt(np.maximum(variances, 0))
    return coordinates[:, ::-1][:, : min(len(vectors) - 1, vectors.shape[1])]


def weight_views(ensemble: Ensemble) -> dict[str, np.ndarray]:
    """The parts of the weights that are looked at: name -> [N, K].

    All weights together, those of each layer, and those of the first filter of each layer that has
    several. Layers are counted as in `ensemble.target.layers`.
    """
    target = ensemble.target
    views = {"all weights": ensemble.theta()}
    rows = target.rows(ensemble.weights.trainable)
    for place, tensor in enumerate(rows, 1):
        views[f"layer {place}"] = tensor.numpy().reshape(len(ensemble), -1)
    for place, (layer, tensor) in enumerate(zip(target.layers, rows, strict=True), 1):
        if layer.filters > 1:
            views[f"layer {place}, filter 1"] = tensor.numpy()[:, 0]
    return views
