"""What all tests share: a seed, small data sets, and figures that are not drawn.

TensorFlow is imported inside of fixtures: pytest-xdist also reads this file in the process that
only distributes the tests, before it starts the others.
"""

import contextlib
import dataclasses
import functools
import gc
import os
import pathlib

import numpy as np
import pytest

# Gradients of grouped convolutions on a CPU need oneDNN, which TensorFlow turns on by itself only
# on some processors. It reads this when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@pytest.fixture(scope="session", autouse=True)
def imported_objects_are_kept():
    """Freeze imported objects, which garbage collections then pass over, and collect seldom.

    Graphs are many objects that live long: collections while they are made take a twentieth of the
    time of the tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(scope="session", autouse=True)
def graphs_as_they_are_traced(request):
    """Leave out Grappler, which takes longer than the few runs of a graph; slow tests have it."""
    import tensorflow as tf

    if request.config.getoption("markexpr") == "not slow":
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture
def optimized():
    """Graphs are optimised, as outside of the fast tests."""
    import tensorflow as tf

    options = tf.config.optimizer
    before = options.get_experimental_options().get("disable_meta_optimizer", False)
    options.set_experimental_options({"disable_meta_optimizer": False})
    yield
    options.set_experimental_options({"disable_meta_optimizer": before})


_LARGE = max(2.5e9, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 6)  # bytes


def _memory():
    """Bytes that this process has in memory; where the system does not say, more than enough."""
    pages = pathlib.Path("/proc/self/statm")
    if not pages.exists():
        return 2 * _LARGE
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module", autouse=True)
def garbage():
    """Collect garbage and kernels after a module, where the process has grown large.

    After each test collections take a tenth of the suite's time, and nearly as much after each
    module while they look at all that earlier modules imported and keep. Freeing the graphs of a
    hundred tests takes ten seconds.
    """
    import keras

    yield
    if _memory() > _LARGE:
        gc.unfreeze()
        keras.backend.clear_session(free_memory=False)
        gc.collect()
    gc.freeze()


@contextlib.contextmanager
def kept_kernels():
    """Keep the kernels that TensorFlow has made, which seeds and cleared sessions throw away.

    They would be made again for each test, a seventh of the suite's time. Random operations with a
    state (`tf.random.normal`) therefore go on from the test before: use stateless ones.
    """
    from tensorflow.python import pywrap_tfe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pywrap_tfe, "TFE_ContextClearCaches", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def seed():
    """Set the same global seeds before every test, and clear what it left in Keras after it."""
    import keras
    from tensorflow.python.framework.config import disable_op_determinism  # which runs enable

    with kept_kernels():
        keras.utils.set_random_seed(1234)
    yield
    disable_op_determinism()
    with kept_kernels():
        keras.backend.clear_session(free_memory=False)


@pytest.fixture(scope="session")
def load_once():
    """`hn.data.load` with a cache: reading the 5,000 digits takes two seconds."""
    import hypernet_tf as hn

    return functools.cache(hn.data.load)


@pytest.fixture(scope="session")
def with_few_digits(load_once):
    """A context in which each part of a data set has eighty images: short runs.

    The parts differ, but share most of their images, so that a short training learns them.
    """
    import hypernet_tf as hn

    def load(name, data_dir=None):
        selection = hn.data.Selection.parse(name)
        whole = selection.apply(load_once(selection.name, data_dir))
        first = whole.train if len(whole.train) else whole.test
        parts = {
            part: hn.data.Split(first.images[start : start + 80], first.labels[start : start + 80])
            for part, start in (("train", 0), ("validation", 10), ("test", 20))
        }
        return dataclasses.replace(whole, **parts)

    @contextlib.contextmanager
    def context():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hn.data, "load", load)
            yield

    return context


@pytest.fixture(scope="module")
def few_digits(with_few_digits):
    """Eighty real images in each part of a data set, for all tests of a file."""
    with with_few_digits():
        yield


@pytest.fixture(scope="session")
def undrawn():
    """A context in which figures (all, or those named) are not drawn: it saves most of the time."""
    from matplotlib.figure import Figure

    from hypernet_tf.training.tensorboard import TensorBoardWriter

    real = Figure.savefig

    @contextlib.contextmanager
    def context(names=None):
        def savefig(figure, path):
            if names is None or path.name.split(".")[1] in names:  # written aside as .name.part.png
                path.write_bytes(b"a picture")
            else:
                real(figure, path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", savefig)
            patch.setattr(TensorBoardWriter, "networks", lambda *_: None)  # its pictures
            yield

    return context


@pytest.fixture
def quick_pictures(undrawn):
    """For a test that does not test its figures."""
    with undrawn():
        yield


@pytest.fixture(scope="session")
def blobs():
    """Three well separated classes in the plane: x [96, 2], y [96]."""
    rng = np.random.default_rng(0)
    y = np.arange(96) % 3
    centres = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    x = (centres[y] + 0.3 * rng.normal(size=(96, 2))).astype("float32")
    for array in (x, y):
        array.flags.writeable = False
    return x, y


@pytest.fixture(scope="session")
def eagerly():
    """A context in which nothing is traced: making a graph takes longer than a few steps."""
    import keras
    import tensorflow as tf

    owner = next(cls for cls in keras.Model.__mro__ if "compile" in vars(cls))
    real = owner.compile

    def compile_eagerly(self, *args, **kwargs):
        return real(self, *args, **kwargs | {"run_eagerly": True})

    @contextlib.contextmanager
    def context():
        before = tf.config.functions_run_eagerly()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, "compile", compile_eagerly)
            tf.config.run_functions_eagerly(True)
            try:
                yield
            finally:
                tf.config.run_functions_eagerly(before)

    return context


@pytest.fixture
def eager_fits(eagerly):
    """Run Keras models eagerly: making a graph takes longer than a few steps."""
    with eagerly():
        yield
