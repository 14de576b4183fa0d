"""Principal components of the networks' weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble, require_finite_weights


class Components(NamedTuple):
    """Principal components of N weight vectors.

    Attributes:
        coordinates: Coordinates [N, c] of the networks, components with most variance first.
        explained: Share [c] of the variance that each component explains.
        explained_if_independent: The same for weights that vary independently of each other: every
            column of the data is shuffled over the networks. A larger share shows structure.
    """

    coordinates: np.ndarray
    explained: np.ndarray
    explained_if_independent: np.ndarray


def principal_components(vectors: np.ndarray, components: int = 6, *, seed: int = 0) -> Components:
    """Principal component analysis of weights (Deutsch et al. 2019, section 4.1, "Scatter").

    Args:
        vectors: Some weights [N, K] of each of N networks.
        components: c, the number of components; at most K are computed.
        seed: Seed of the shuffling, and of scikit-learn's randomised solver.

    Raises:
        ValueError: There are not more networks than components, or weights are not finite.

    Source: `sklearn.decomposition.PCA`.
    """
    from sklearn.decomposition import PCA  # takes seconds: only for those who use it

    components = min(components, vectors.shape[1])
    if len(vectors) <= components:
        raise ValueError(
            f"{components} principal components need at least {components + 1} networks, not "
            f"{len(vectors)}."
        )
    require_finite_weights(vectors)
    # Centred here: scikit-learn would take differences of large numbers in single precision.
    vectors = vectors - vectors.mean(0, dtype=np.float64).astype(vectors.dtype)
    if not vectors.any():  # equal networks, which have no variance to explain
        nothing = np.full(components, np.nan)
        return Components(np.zeros([len(vectors), components]), nothing, nothing)
    # A random solver would underestimate the variances of shuffled vectors, which are alike.
    solver = "arpack" if components < min(vectors.shape) else "full"
    pca = PCA(components, svd_solver=solver, random_state=seed)
    coordinates = pca.fit_transform(vectors)
    shuffled = np.random.default_rng(seed).permuted(vectors, axis=0)
    independent = PCA(components, svd_solver=solver, random_state=seed).fit(shuffled)
    return Components(
        coordinates, pca.explained_variance_ratio_, independent.explained_variance_ratio_
    )


def spanned_coordinates(vectors: np.ndarray) -> np.ndarray:
    """Coordinates of N vectors in the space that they span, [N, min(N - 1, K)].

    These are all their principal components, those with most variance first: a rotation, which
    keeps every distance. It makes a small table of a few vectors of millions of weights.

    Args:
        vectors: Vectors [N, K].

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
    """Parts of the weights: name -> [N, K].

    All weights; those of each layer; and those of the first filter of each layer with more than one
    filter. Layers are numbered from 1 as in `ensemble.target.layers`.

    Args:
        ensemble: N networks.
    """
    target = ensemble.target
    views = {"all weights": ensemble.theta()}
    rows = target.rows(ensemble.weights.trainable)
    for number, tensor in enumerate(rows, 1):
        views[f"layer {number}"] = tensor.numpy().reshape(len(ensemble), -1)
    for number, (layer, tensor) in enumerate(zip(target.layers, rows, strict=True), 1):
        if layer.filters > 1:
            views[f"layer {number}, filter 1"] = tensor.numpy()[:, 0]
    return views
