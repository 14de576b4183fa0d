"""How similar the predictions of N networks are, over pairs of networks.

No function holds an array of N x N x M x C numbers.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from hypernet_tf.metrics.accuracy import check_log_probabilities, votes


def pairwise_disagreement(log_probabilities: np.ndarray) -> np.ndarray:
    """Share of pairs of networks that choose different classes, [M].

    Counted from the votes in time O(NM): v networks with one class make v(v - 1)/2 agreeing pairs.

    Args:
        log_probabilities: Log-probabilities [N, M, C], N >= 2.

    Raises:
        ValueError: There is one network only, or these are not log-probabilities.
    """
    log_probabilities = check_log_probabilities(log_probabilities, 3, 4, 5, 6)
    num_networks = _num_networks(log_probabilities, "pairwise disagreement")
    *shape, num_classes = log_probabilities.shape[1:]
    chosen = log_probabilities.argmax(-1).reshape(num_networks, -1)
    counts = votes(chosen, num_classes).reshape(*shape, num_classes).astype(np.float64)
    return 1.0 - (counts * (counts - 1)).sum(-1) / (num_networks * (num_networks - 1))


def pairwise_kl_divergence(log_probabilities: np.ndarray) -> np.ndarray:
    """Mean over ordered pairs of networks of KL(p_n || p_m), in nats, [M].

    1/(N(N-1)) sum_n sum_m KL(p_n || p_m) = 1/(N-1) sum_n sum_c p_nc (log p_nc - l_c), where l is
    the mean of the log-probabilities: time O(NMC). Infinite where a network gives probability 0 to
    a class to which another one does not.

    Args:
        log_probabilities: Log-probabilities [N, M, C], N >= 2.

    Raises:
        ValueError: There is one network only, or these are not log-probabilities.

    Source: Malinin 2019, "Uncertainty Estimation in Deep Learning", as expected pairwise
    Kullback-Leibler divergence.
    """
    log_probabilities = check_log_probabilities(log_probabilities, 3, 4, 5, 6)
    num_networks = _num_networks(log_probabilities, "pairwise KL divergence")
    log_p = log_probabilities.astype(np.float64)
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):  # -inf - -inf, where p is 0
        terms = np.where(p > 0, p * (log_p - log_p.mean(0)), 0.0)
    return np.maximum(terms.sum((0, -1)) / (num_networks - 1), 0.0)  # rounding


def pairwise_js_divergence(log_probabilities: np.ndarray) -> np.ndarray:
    """Mean over pairs of networks of the Jensen-Shannon divergence, in nats, [M].

    JS(p, q) = H((p + q)/2) - H(p)/2 - H(q)/2, between 0 and log 2. Takes time O(N²MC) and memory
    O(NMC). The joint divergence of all networks is `mutual_information`, in time O(NMC).

    Args:
        log_probabilities: Log-probabilities [N, M, C], N >= 2.

    Raises:
        ValueError: There is one network only, or these are not log-probabilities.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    log_probabilities = check_log_probabilities(log_probabilities, 3, 4, 5, 6)
    num_networks = _num_networks(log_probabilities, "pairwise Jensen-Shannon divergence")
    p = np.exp(log_probabilities, dtype=np.float64)
    total = np.zeros(p.shape[1:-1])
    # The networks beside themselves shifted by 1, 2, ..., N/2 positions: each pair once.
    for shift in range(1, num_networks // 2 + 1):
        num_pairs = num_networks // 2 if 2 * shift == num_networks else num_networks
        middle = (p[:num_pairs] + np.roll(p, -shift, 0)[:num_pairs]) / 2
        total += entr(middle).sum((0, -1))
    mean = total / (num_networks * (num_networks - 1) / 2)
    return np.maximum(mean - entr(p).sum(-1).mean(0), 0.0)  # rounding


def linear_cka(outputs: np.ndarray) -> float:
    """Mean over pairs of networks of linear centred kernel alignment, between 0 and 1.

    CKA(X, Y) = |Y'X|² / (|X'X| |Y'Y|), Frobenius norms, columns centred over examples. It is 1 for
    outputs that are equal up to rotation, scale and shift. Takes time O(N²MF²).

    Args:
        outputs: Logits, log-probabilities or features [N, M, F], finite; N >= 2, M >= 2.

    Raises:
        ValueError: There is one network only; or a network returns the same for all examples, or
            infinite values, for which CKA is not defined; or the outputs have other axes.

    Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited",
    section 3, with a linear kernel.
    """
    outputs = np.asarray(outputs)
    if outputs.ndim != 3:
        raise ValueError(
            f"Outputs have the shape {list(outputs.shape)}: give [networks, examples, features], "
            "such as outputs.reshape(*outputs.shape[:2], -1)."
        )
    num_networks = _num_networks(outputs, "centred kernel alignment")
    if not np.isfinite(outputs).all():
        raise ValueError("Centred kernel alignment needs finite outputs.")
    if (np.ptp(outputs, 1) == 0).all(-1).any():
        raise ValueError("Centred kernel alignment needs outputs that differ between examples.")
    x = outputs - outputs.mean(1, keepdims=True, dtype=np.float64)
    x /= np.abs(x).max((1, 2), keepdims=True)  # CKA does not depend on scale: no square overflows
    side_by_side = np.moveaxis(x, 0, 1).reshape(x.shape[1], -1)  # [M, N·F]
    # Row n: the squared norms of X_n'X_m for every m.
    squares = np.stack(
        [((one.T @ side_by_side) ** 2).reshape(-1, *x.shape[::2]).sum((0, 2)) for one in x]
    )
    norms = np.sqrt(np.diag(squares))
    similarity = squares / np.outer(norms, norms)
    return float((similarity.sum() - num_networks) / (num_networks * (num_networks - 1)))


def _num_networks(array: np.ndarray, name: str) -> int:
    if len(array) < 2:
        raise ValueError(f"{name[0].upper()}{name[1:]} needs at least 2 networks.")
    return len(array)
