"""The regression problem of HyperGAN's paper: a cubic curve with noise."""

from __future__ import annotations

import numpy as np

LIMIT = 4.0  # the inputs lie in [-LIMIT, LIMIT]


def cubic(
    count: int = 20, *, noise_std: float = 3.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy points of a cubic curve, y = x³ + N(0, noise_std²).

    Two inputs are -4 and 4, and the others are uniform on [-4, 4], as in the experiment of
    HyperGAN (Ratzlaff and Fuxin 2019).

    Args:
        count: Number of points, at least 2.
        noise_std: Standard deviation of the noise.
        seed: Seed of inputs and noise.

    Returns:
        Inputs x and values y, float32 [count, 1] each, in the order of x.

    Raises:
        ValueError: count is below 2.

    Example:
        >>> x, y = cubic(seed=0)
        >>> x.shape, x.min().item(), x.max().item()
        ((20, 1), -4.0, 4.0)

    Reference: "HyperGAN: A Generative Model for Diverse, Performant Neural Networks",
    arXiv 1901.11058.
    """
    if count < 2:
        raise ValueError(f"Cannot draw {count} points: give a count of at least 2.")
    random = np.random.default_rng(seed)
    x = np.sort(np.append(random.uniform(-LIMIT, LIMIT, count - 2), [-LIMIT, LIMIT]))[:, None]
    y = x**3 + random.normal(0, noise_std, x.shape)
    return x.astype(np.float32), y.astype(np.float32)
