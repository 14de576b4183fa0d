"""Early stopping on the diversity of the networks."""

from __future__ import annotations

import keras

from hypernet_tf.checks import check_count
from hypernet_tf.samplers.base import NORM_NETWORKS, WeightSampler


class DiversityStopping(keras.callbacks.Callback):
    """Stops `fit` when the networks have become alike.

    After each epoch it adds `norm_spread`, the standard deviation over the mean of the L2 norms of
    networks (`WeightSampler.norm_spread`), to the logs of the epoch. The history has it, and
    callbacks that come later in the list can monitor it. Training stops after an epoch if the
    spread was below `fraction` of its highest value so far for `patience` epochs in a row. While
    there is a single network, there is no spread. With samplers that train in the gauge,
    which fixes the norms of most layers, `fit` raises an error.

    Args:
        fraction: Fraction of the highest spread below which networks count as alike; 0 never stops.
        patience: Number of epochs in a row.
        num_networks: Number of networks; of a finite sampler at most all that it holds.
        seed: Seed of the draw of the networks.

    Attributes:
        stopped_epoch: Number of the epoch, from 0, after which training stopped; None if it did
            not.

    Raises:
        ValueError: An argument is out of range; or, as `fit` begins, the model is not a sampler, or
            one that trains in the gauge.

    Example:
        >>> gan = HyperGAN(model)
        >>> gan.compile("adam", SparseCategoricalCrossentropy(from_logits=True))
        >>> history = gan.fit(x, y, epochs=100, callbacks=[DiversityStopping(fraction=0.3)])
        >>> history.history["norm_spread"]

    Reference: Ratzlaff and Fuxin (2019): diversity falls as training goes on.
    """

    def __init__(
        self,
        fraction: float = 0.5,
        *,
        patience: int = 1,
        num_networks: int = NORM_NETWORKS,
        seed: int = 0,
    ):
        super().__init__()
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}: give a number from 0 to 1.")
        self.fraction, self.patience = fraction, check_count("patience", patience)
        self.num_networks, self.seed = check_count("num_networks", num_networks, 2), seed
        self.stopped_epoch: int | None = None

    def on_train_begin(self, logs=None):
        """Forget an earlier training."""
        if not isinstance(self.model, WeightSampler):
            raise ValueError("This model is one network: use DiversityStopping with a sampler.")
        if self.model.trains_in_gauge:
            raise ValueError(
                f"The gauge fixes the norms of networks while {type(self.model).__name__} trains, "
                "so that their spread says nothing: monitor diversity_loss, or make the sampler "
                "with gauge=False."
            )
        self.stopped_epoch = None
        self._highest, self._epochs_alike = 0.0, 0

    def on_epoch_end(self, epoch, logs=None):
        """Add the spread to the logs, and stop if it has been low for long enough."""
        spread = self.model.norm_spread(self.num_networks, seed=self.seed)
        if spread is None:
            return
        if logs is not None:
            logs["norm_spread"] = spread
        self._highest = max(self._highest, spread)
        is_alike = spread < self.fraction * self._highest
        self._epochs_alike = self._epochs_alike + 1 if is_alike else 0
        if self._epochs_alike >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True
