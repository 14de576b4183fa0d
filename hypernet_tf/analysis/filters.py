"""Filters of each layer in many networks: pictures of them, and how much they vary.

Layers are numbered from 1 as in `ensemble.target.layers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.gauge import Gauge
from hypernet_tf.gauge.scales import Step
from hypernet_tf.targets import Target
from hypernet_tf.targets.layers import channels_last

# ---- pictures -------------------------------------------------------------------------------


class LayerPictures(NamedTuple):
    """Pictures of one layer's first filters.

    Attributes:
        layer: Number of the layer.
        kind: What a picture shows: "filter", "neuron", or "the whole kernel", of which there is
            one.
        pictures: Pictures [N, filters, height, width].
    """

    layer: int
    kind: str
    pictures: np.ndarray


def layer_pictures(ensemble: Ensemble, filters: int) -> list[LayerPictures]:
    """The first filters of each layer in each network.

    For a convolution over two dimensions a picture is the slice of a filter's kernel on the first
    input channel. For a dense layer that reads a flattened picture it shows the weights of a neuron
    on the first channel, for any other dense layer the whole kernel. Other layers have no picture.

    Args:
        ensemble: N networks.
        filters: Number of filters of each layer, at most.

    Reference: Deutsch et al. (2019), section 4.1, visual inspection.
    """
    target = ensemble.target
    results = []
    for number, (layer, operation) in enumerate(
        zip(target.layers, layer_operations(target), strict=True), 1
    ):
        kernel = ensemble.weights.trainable[layer.slots[0].index]
        if isinstance(operation, keras.layers.Conv2D):
            first = kernel[:, :, :, 0, :filters]
            pictures = np.moveaxis(first.numpy(), -1, 1)
            results.append(LayerPictures(number, "filter", pictures))
        elif isinstance(operation, keras.layers.Dense):
            shape = _flattened_shape(target, operation)
            if shape is None:
                pictures = kernel.numpy()[:, None]
                results.append(LayerPictures(number, "the whole kernel", pictures))
            else:
                first = kernel[..., :filters].numpy()
                spatial = first.reshape(len(first), *shape, first.shape[-1])[..., 0, :]
                results.append(LayerPictures(number, "neuron", np.moveaxis(spatial, -1, 1)))
    return results


def filter_pictures(ensemble: Ensemble) -> dict[str, np.ndarray]:
    """One picture per layer and network, of its first filter: title -> [N, height, width].

    Args:
        ensemble: N networks.

    Example:
        >>> for title, pictures in filter_pictures(hyper.sample(25)).items(): ...
    """
    return {
        f"layer {number}: {kind}" + ("" if "whole" in kind else " 1, channel 1"): pictures[:, 0]
        for number, kind, pictures in layer_pictures(ensemble, 1)
    }


def layer_operations(target: Target) -> list[Any]:
    """The Keras layer behind each of `target.layers`.

    Args:
        target: Target.
    """
    operations = target.plan.operations
    return [next(o for o in operations if target.weighted(o) is layer) for layer in target.layers]


def _flattened_shape(target: Target, dense: Any) -> tuple | None:
    """Shape (height, width, channels) of the picture that a dense layer reads flattened."""
    plan = target.plan
    call = next(call for call in plan.calls if call.operation is dense)
    maker = plan.maker(call.inputs[0])
    if maker is None or not isinstance(maker.operation, keras.layers.Flatten):
        return None
    shape = plan.shapes[maker.inputs[0]]
    is_picture = channels_last(maker.operation) and len(shape) == 3 and None not in shape
    return shape if is_picture else None


# ---- diversity ------------------------------------------------------------------------------


class FilterDiversity(NamedTuple):
    """How much the filters of one layer vary, and how large the weights are that read them.

    Attributes:
        layer: Number of the layer.
        diversity: Root mean square [F], over the weights of a filter, of the standard deviation
            over networks. In the fixed gauge the weights of a filter have a mean square of 1,
            except where a sum of layers shares its scale with another one's.
        next_weights: Root mean square [F], over networks and weights, of the weights with which the
            next layers read the filter.
    """

    layer: int
    diversity: np.ndarray
    next_weights: np.ndarray


def filter_diversity(ensemble: Ensemble) -> list[FilterDiversity]:
    """Diversity of each filter, and the size of the next layers' weights on it.

    A sampler can increase the entropy by filters that no layer reads: then the filters with the
    smallest weights after them are the most diverse ones (Deutsch et al. 2019, section 4.1).

    Args:
        ensemble: N >= 2 networks in the fixed gauge.

    Returns:
        One entry for each layer whose filters all have a free scale and are read by a layer, so not
        for the last one. A batch normalisation reads with gamma; its gamma and beta are filters.

    Raises:
        ValueError: There is one network only.
    """
    if len(ensemble) < 2:
        raise ValueError("Diversity of filters needs at least 2 networks.")
    trainable = ensemble.weights.trainable
    steps, results = Gauge(ensemble.target).steps, []
    for step in steps:
        mean_squares = _reading_weights(steps, step.makes, trainable)
        if step.layer is None or mean_squares is None:
            continue
        rows = step.layer.rows([trainable[slot.index] for slot in step.layer.slots]).numpy()
        variance = rows.astype(np.float64).var(axis=0, ddof=1)  # [F, R]
        number = ensemble.target.layers.index(step.layer) + 1
        results.append(FilterDiversity(number, np.sqrt(variance.mean(-1)), np.sqrt(mean_squares)))
    return results


def _reading_weights(
    steps: Sequence[Step], channels: np.ndarray, trainable: list
) -> np.ndarray | None:
    """Mean square [F] of the weights that read each channel; None if some have no reader."""
    total, num_weights = np.zeros(len(channels)), np.zeros(len(channels))
    for step in steps:
        first = None if step.layer is None else step.layer.slots[0]
        if first is None or first.name == "beta" or not np.isin(channels, step.reads).any():
            continue
        weights = trainable[first.index].numpy().astype(np.float64)
        other_axes = tuple(axis for axis in range(weights.ndim) if axis != step.axis)
        mean_squares = np.mean(weights**2, axis=other_axes)
        for index, channel in enumerate(channels):
            if channel > 0 and (is_read := step.reads == channel).any():
                count = is_read.sum() * weights.size / weights.shape[step.axis]
                total[index] += count * mean_squares[is_read].mean()
                num_weights[index] += count
    return total / num_weights if num_weights.all() else None
