"""Image data sets as NumPy arrays, split into training, validation and test images.

`mnist_5k` is embedded and needs neither a download nor files. The other photographs and digits are
prepared and read by TensorFlow Datasets (TFDS), or without an internet connection from the original
files. `from_folder` reads images of your own. `pad_to` makes colour images of grey ones. `notmnist`
and `glyphs` (letters) and `uniform_noise` test networks on images that show no digits.
`cubic` is a regression problem: inputs and values instead of images.
"""

from hypernet_tf.data.cubic import cubic
from hypernet_tf.data.errors import DataError
from hypernet_tf.data.folders import from_folder
from hypernet_tf.data.loading import load, resolve
from hypernet_tf.data.noise import uniform_noise
from hypernet_tf.data.padding import pad_to
from hypernet_tf.data.registry import DATASETS, DatasetOption, fits, names_for, register_dataset
from hypernet_tf.data.selection import Selection, title
from hypernet_tf.data.splits import Dataset, Split

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "DatasetOption",
    "Selection",
    "Split",
    "cubic",
    "fits",
    "from_folder",
    "load",
    "names_for",
    "pad_to",
    "register_dataset",
    "resolve",
    "title",
    "uniform_noise",
]
