"""`TargetLayer`: a target as a Keras layer."""

from __future__ import annotations

from typing import Any

import keras

from hypernet_tf.targets.networks import WeightSet
from hypernet_tf.targets.target import Target


@keras.saving.register_keras_serializable(package="hypernet_tf")
class TargetLayer(keras.layers.Layer):
    """The Keras layer face of a `Target`: weights and inputs in, outputs [N, B, ...] out.

    It has no variables; its call takes `(trainable, inputs)`, where `trainable` are the generated
    weights in the order of the model's trainable variables and the state is that of the start: the
    values of frozen layers, which are saved with the layer, and the same dropout in each call.

    Example:
        >>> layer = TargetLayer(target)
        >>> layer((target.unflatten(theta).trainable, images)).shape
        TensorShape([3, 5, 2])
    """

    def __init__(self, target: Target, **kwargs: Any):
        super().__init__(**kwargs)
        self.target = target

    def call(self, inputs, training=False):
        """Run the networks; see `Target.run`."""
        trainable, images = inputs
        state = self.target.initial_state(trainable[0].shape[0])
        return self.target(WeightSet(list(trainable), state), images, training=bool(training))

    def get_config(self) -> dict:
        """The layer's configuration with its target."""
        return super().get_config() | {"target": keras.saving.serialize_keras_object(self.target)}

    @classmethod
    def from_config(cls, config: dict) -> TargetLayer:
        """A layer from `get_config`."""
        return cls(**config | {"target": keras.saving.deserialize_keras_object(config["target"])})

    def save_own_variables(self, store):
        """The values of the target's frozen layers, which the configuration does not hold."""
        for index, variable in enumerate(self.target.frozen):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store):
        """The reverse of `save_own_variables`."""
        for index, variable in enumerate(self.target.frozen):
            variable.assign(store[str(index)])
