"""The same examples as data sets of every kind that the package takes."""

import keras
import numpy as np
import tensorflow as tf


class Batches(keras.utils.PyDataset):
    """Batches of several sizes, from arrays."""

    def __init__(self, *arrays, sizes=(4, 1, 9)):
        super().__init__()
        total = len(arrays[0])
        ends = [end for end in np.cumsum(sizes) if end < total] + [total]
        starts = [0, *ends[:-1]]
        self.batches = [
            tuple(a[start:end] for a in arrays) for start, end in zip(starts, ends, strict=True)
        ]

    @property
    def num_batches(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class Endless(Batches):
    """A data set without an end, which repeats its batches."""

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return self.batches[index % len(self.batches)]


def generated(*arrays):
    """A tf.data.Dataset of unknown cardinality, whose batches have other sizes."""
    batches = Batches(*arrays, sizes=(10, 5)).batches
    signature = tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays)
    return tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)


def sliced(*arrays):
    """A tf.data.Dataset of batches of six."""
    return tf.data.Dataset.from_tensor_slices(arrays).batch(6)


DATA_SETS = {"sliced": sliced, "generated": generated, "PyDataset": Batches}
