"""The same filter of each layer in many networks, as small pictures to be looked at."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.targets import Target


def filter_pictures(ensemble: Ensemble) -> dict[str, np.ndarray]:
    """One picture per layer and network: what it shows -> [N, height, width].

    Of a convolution over two dimensions, the slice of the first filter's kernel on the first input
    channel. Of a dense layer that reads a flattened picture, the first neuron's weights on its
    first channel; of any other dense layer, the whole kernel. Other layers have no picture.

    Example:
        >>> for name, pictures in filter_pictures(hyper.sample(25)).items(): ...

    Reference: Deutsch et al. (2019), section 4.1, visual inspection.
    """
    target = ensemble.target
    pictures = {}
    for place, layer in enumerate(target.layers, 1):
        operation = next(o for o in target.plan.operations if target.weighted(o) is layer)
        kernel = ensemble.weights.trainable[layer.slots[0].index].numpy()
        if isinstance(operation, keras.layers.Conv2D):
            pictures[f"layer {place}: filter 1, channel 1"] = kernel[..., 0, 0]
        elif isinstance(operation, keras.layers.Dense):
            shape = _flattened(target, operation)
            if shape is None:
                pictures[f"layer {place}: the whole kernel"] = kernel
            else:
                spatial = kernel.reshape(len(kernel), *shape, kernel.shape[-1])
                pictures[f"layer {place}: neuron 1, channel 1"] = spatial[..., 0, 0]
    return pictures


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
