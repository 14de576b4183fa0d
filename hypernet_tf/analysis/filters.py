"""Filters of each layer in many networks: pictures of them, and how much they vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.gauge import Gauge
from hypernet_tf.gauge.scales import Step
from hypernet_tf.targets import Target


class LayerPictures(NamedTuple):
    """Pictures of one layer's first filters.

    Attributes:
        layer: the layer's place among `target.layers`, counted from 1.
        kind: "filter", "neuron", or "the whole kernel", of which there is one.
        pictures: [N, filters, height, width].
    """

    layer: int
    kind: str
    pictures: np.ndarray


def layer_pictures(ensemble: Ensemble, filters: int) -> list[LayerPictures]:
    """The first filters of each layer in each network.

    Of a convolution over two dimensions, the slice of a filter's kernel on the first input channel.
    Of a dense layer that reads a flattened picture, a neuron's weights on its first channel; of any
    other dense layer, the whole kernel. Other layers have no picture.

    Args:
        ensemble: N networks.
        filters: how many of each layer, at most.

    Reference: Deutsch et al. (2019), section 4.1, visual inspection.
    """
    target = ensemble.target
    found = []
    for place, (layer, operation) in enumerate(
        zip(target.layers, layer_operations(target), strict=True), 1
    ):
        kernel = ensemble.weights.trainable[layer.slots[0].index]
        if isinstance(operation, keras.layers.Conv2D):
            first = kernel[:, :, :, 0, :filters]
            pictures = np.moveaxis(first.numpy(), -1, 1)
            found.append(LayerPictures(place, "filter", pictures))
        elif isinstance(operation, keras.layers.Dense):
            shape = _flattened(target, operation)
            if shape is None:
                found.append(LayerPictures(place, "the whole kernel", kernel.numpy()[:, None]))
            else:
                first = kernel[..., :filters].numpy()
                spatial = first.reshape(len(first), *shape, first.shape[-1])[..., 0, :]
                found.append(LayerPictures(place, "neuron", np.moveaxis(spatial, -1, 1)))
    return found


def filter_pictures(ensemble: Ensemble) -> dict[str, np.ndarray]:
    """One picture per layer and network, of its first filter: what it shows -> [N, height, width].

    Example:
        >>> for name, pictures in filter_pictures(hyper.sample(25)).items(): ...
    """
    return {
        f"layer {place}: {kind}" + ("" if "whole" in kind else " 1, channel 1"): pictures[:, 0]
        for place, kind, pictures in layer_pictures(ensemble, 1)
    }


def layer_operations(target: Target) -> list[Any]:
    """The Keras layer of the plan behind each of `target.layers`."""
    operations = target.plan.operations
    return [next(o for o in operations if target.weighted(o) is layer) for layer in target.layers]


def _flattened(target: Target, dense: Any) -> tuple | None:
    """[height, width, channels] of the picture that a dense layer reads flattened, if it does."""
    plan = target.plan
    call = next(call for call in plan.calls if call.operation is dense)
    maker = plan.maker(call.inputs[0])
    if maker is None or not isinstance(maker.operation, keras.layers.Flatten):
        return None
    shape = plan.shapes[maker.inputs[0]]
    last = getattr(maker.operation, "data_format", None) != "channels_first"
    return shape if last and len(shape) == 3 and None not in shape else None


class FilterDiversity(NamedTuple):
    """How much the filters of one layer vary, and how much the next layer makes of them.

    Attributes:
        layer: the layer's place among `ensemble.target.layers`, counted from 1.
        diversity: [F] root mean square, over the filter's weights, of the standard deviation over
            networks. In the fixed gauge a filter's weights have a mean square of one, but for all
            but the first branch of a sum.
        next_weights: [F] root mean square of the weights by which the next layer reads the filter,
            over networks and weights.
    """

    layer: int
    diversity: np.ndarray
    next_weights: np.ndarray


def filter_diversity(ensemble: Ensemble) -> list[FilterDiversity]:
    """Diversity of each filter beside the size of the next layer's weights on it.

    A sampler can make entropy out of filters that nobody listens to; then the most diverse filters
    are those with the least weights after them (Deutsch et al. 2019, section 4.1, the failure
    to watch).

    Args:
        ensemble: N >= 2 networks in the fixed gauge.

    Returns:
        One for each layer whose filters all have a free scale and a reader: not for the last one.
        A batch normalisation reads by gamma, and its gamma and beta are filters.

    Raises:
        ValueError: one network does not vary.
    """
    if len(ensemble) < 2:
        raise ValueError("diversity of filters needs at least 2 networks")
    trainable = ensemble.weights.trainable
    steps, results = Gauge(ensemble.target).steps, []
    for step in steps:
        read = _read(steps, step.makes, trainable)
        if step.layer is None or read is None:
            continue
        rows = step.layer.rows([trainable[slot.index] for slot in step.layer.slots]).numpy()
        variance = rows.astype(np.float64).var(axis=0, ddof=1)  # [F, R]
        layer = ensemble.target.layers.index(step.layer) + 1
        results.append(FilterDiversity(layer, np.sqrt(variance.mean(-1)), np.sqrt(read)))
    return results


def _read(steps: Sequence[Step], channels: np.ndarray, trainable: list) -> np.ndarray | None:
    """Mean square of the weights that read each channel [F]; None where some have no reader."""
    total, readers = np.zeros(len(channels)), np.zeros(len(channels))
    for step in steps:
        first = None if step.layer is None else step.layer.slots[0]
        if first is None or first.name == "beta" or not np.isin(channels, step.reads).any():
            continue
        weights = trainable[first.index].numpy().astype(np.float64)
        others = tuple(place for place in range(weights.ndim) if place != step.axis)
        square = np.mean(weights**2, axis=others)
        for place, own in enumerate(channels):
            if own > 0 and (found := step.reads == own).any():
                total[place] += square[found].mean()
                readers[place] += 1
    return total / readers if readers.all() else None
