"""Filters of each layer in many networks, as small pictures to be looked at."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble
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
