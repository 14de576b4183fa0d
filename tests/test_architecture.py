"""The shape of the package: imports point one way, nothing heavy at the start."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import hypernet_tf
import reproduce

PACKAGES = [pathlib.Path(m.__file__).parent for m in (hypernet_tf, reproduce)]
FILES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))

# Each part may import those after it, and itself.
ORDER = (
    "reproduce",
    "pretrained",
    "training",
    "samplers",
    "analysis",
    "ensembles",
    "diversity",
    "metrics",
    "gauge",
    "targets",
    "checks",
    "files",
)
ALONE = ("plots", "data")  # import nothing of ours


def part(path):
    """The part of the package that a file belongs to; all of the commands are one."""
    package, commands = PACKAGES
    if path.is_relative_to(commands):
        return "reproduce"
    return path.relative_to(package).parts[0].removesuffix(".py")


def imports(path):
    """The modules of ours that a file imports, as dotted names."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in ("hypernet_tf", "reproduce")]


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if part(path) not in ("__init__", "reproduce")],
    ids=lambda p: "/".join(p.parts[-2:]),
)
def test_imports_point_one_way(path):
    own = part(path)
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] == "hypernet_tf", f"the package imports {name}"
        assert len(parts) > 1
        other = parts[1]
        if own == other:
            continue
        assert own not in ALONE, f"{own} imports {name}"
        if other in ALONE:
            assert own == "training", f"{own} imports {name}"
        else:
            assert ORDER.index(own) <= ORDER.index(other), f"{own} imports {name}"


# The parts of `reproduce`, each of which may import those after it; commands, the modules beside
# them, may import all.
PARTS_OF_REPRODUCE = ("cli", "studies", "reports", "analyses", "runs", "configs")


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if part(path) == "reproduce"],
    ids=lambda p: "/".join(p.parts[-2:]),
)
def test_imports_of_the_commands_point_one_way(path):
    order, own = PARTS_OF_REPRODUCE, path.relative_to(PACKAGES[1]).parts[0]
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "reproduce":
            other = rest.split(".")[0]
            assert other in order, f"{own} imports the command {name}"
            assert own not in order or order.index(own) <= order.index(other), name


def test_the_package_needs_no_flags_and_no_pytest():
    for path in FILES:
        if part(path) != "reproduce":
            text = path.read_text()
            assert "import absl" not in text
            assert "from absl" not in text
            assert "pytest" not in text


def test_every_public_name_is_there():
    for name in hypernet_tf.__all__:
        assert getattr(hypernet_tf, name) is not None


IMPORTS = """
import os, sys, tensorflow
before = set(sys.modules)
import keras, hypernet_tf as hn
def loaded():
    names = ("tensorflow_probability.python", "tensorflow_datasets", "mlxtend",
             "matplotlib.pyplot", "sklearn", "keras_tuner")
    return [name for name in names if name in set(sys.modules) - before]
after_import = loaded()
hyper = hn.Hypernetwork(hn.zoo.regression(), num_networks=2)
hyper.compile("adam", "mse", run_eagerly=True)
hyper.fit(tensorflow.ones([4, 1]), tensorflow.ones([4, 1]), verbose=0)
hyper.sample(3).predict(tensorflow.ones([4, 1]))
names = keras.layers.Add().name, keras.layers.ReLU().name
after_use = loaded()
redirected, dup2 = [], os.dup2
os.dup2 = lambda *descriptors: redirected.append(descriptors) or dup2(*descriptors)
def state():
    stderr = os.fstat(2)
    return stderr.st_ino, stderr.st_dev, dict(os.environ), sys.stderr, sys.stdout
before_commands = state()
import reproduce, reproduce.configs
import reproduce.mnist, reproduce.sweep
print([after_import, after_use, redirected, before_commands == state(), names])
"""


def test_importing_and_using_the_package_does_nothing_else():
    """It loads no heavy package; commands leave streams and environment alone if imported."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    expected = [[], [], [], True, ("add", "re_lu")]  # Keras's first names are the user's
    assert ast.literal_eval(done.stdout) == expected, done.stderr


def test_the_tests_run_against_what_is_installed():
    if "TOX_ENV_NAME" in os.environ:
        assert all("site-packages" in str(package) for package in PACKAGES)
