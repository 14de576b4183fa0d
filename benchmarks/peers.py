"""N networks at once: this package beside other ways to run them, alternated in one run.

The MNIST target with N sets of weights. "training" is the loss of each network on B images of its
own, and its gradient with respect to all weights; "evaluation" are the logits of all networks on
the same images. Every way gets the same weights and images, and its loss, or sum of the logits, is
checked against that of the first.

Each way runs in a process of its own, which says how long its first call takes, and its peak
memory. The processes take turns, one call each; a ratio is the median over neighbours in time.

    python -m benchmarks.peers --rounds 20
    python -m benchmarks.peers --rounds 20 --torch_python /path/to/venv/bin/python

PyTorch is not a dependency: its two ways run where `--torch_python` names an interpreter that has
it.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SHAPES = ((5, 5, 1, 32), (32,), (5, 5, 32, 16), (16,), (784, 8), (8,), (8, 10), (10,))
EVALUATION_IMAGES = 1_000
Step = Callable[[], float]


def weights_of(networks: int) -> list[np.ndarray]:
    """Weights [N, ...] of the networks, in the order of Keras's model.

    Args:
        networks: Number N of networks.
    """
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(networks, *shape)) / np.sqrt(np.prod(shape[:-1]) or 1)).astype("float32")
        for shape in SHAPES
    ]


def batch_of(networks: int, images: int, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels: [N, B, ...] for training, [M, ...] for evaluation.

    Args:
        networks: Number N of networks.
        images: Number B of images of a network in a training step.
        task: "training" or "evaluation".
    """
    shape = (networks, images) if task == "training" else (EVALUATION_IMAGES,)
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(*shape, 28, 28, 1)).astype("float32")
    return x, rng.integers(0, 10, shape).astype("int32")


# ---- the ways: each returns a function that does one call and returns a number to check ----------


def hypernet_tf(given: argparse.Namespace) -> Step:
    """`hypernet_tf.Target`: all networks in one graph."""
    import tensorflow as tf

    import hypernet_tf as hn
    from hypernet_tf.targets import WeightSet

    target = hn.Target(hn.zoo.mnist(), outputs="logits")
    weights = [tf.constant(w) for w in weights_of(given.networks)]
    x, y = map(tf.constant, batch_of(given.networks, given.images, given.task))

    def logits() -> Any:
        return target.run(WeightSet(weights, []), x)[0]

    return tensorflow_step(given.task, logits, weights, y)


def keras_loop(given: argparse.Namespace) -> Step:
    """N Keras models, one call of a compiled step each."""
    import tensorflow as tf

    import hypernet_tf as hn

    x, y = batch_of(given.networks, given.images, given.task)
    steps = []
    for number, weights in enumerate(zip(*weights_of(given.networks), strict=True)):
        model = hn.zoo.mnist()
        model.set_weights(weights)
        part = number if given.task == "training" else slice(None)
        images, labels = tf.constant(x[part]), tf.constant(y[part])

        def logits(model: Any = model, images: Any = images) -> Any:
            return model(images)

        variables = [variable.value for variable in model.trainable_variables]
        steps.append(tensorflow_step(given.task, logits, variables, labels))
    return lambda: sum(step() for step in steps)


def map_fn(given: argparse.Namespace) -> Step:
    """`tf.map_fn` over the networks, as the published program does."""
    import tensorflow as tf

    def mapped(function: Any, elements: Any) -> Any:
        return tf.map_fn(function, elements, fn_output_signature=tf.float32)

    return mapped_step(given, mapped)


def vectorized_map(given: argparse.Namespace) -> Step:
    """`tf.vectorized_map` over the networks."""
    import tensorflow as tf

    return mapped_step(given, tf.vectorized_map)


def mapped_step(given: argparse.Namespace, mapped: Callable[[Any, Any], Any]) -> Step:
    """A call that maps the Keras model over weights and, in training, images.

    Args:
        given: The arguments.
        mapped: Function (function of an element, elements) -> results [N, ...].
    """
    import tensorflow as tf

    import hypernet_tf as hn

    model = hn.zoo.mnist()
    weights = [tf.constant(w) for w in weights_of(given.networks)]
    x, y = map(tf.constant, batch_of(given.networks, given.images, given.task))

    def logits() -> Any:
        if given.task == "training":
            return mapped(lambda e: model.stateless_call(e[0], [], e[1])[0], (weights, x))
        return mapped(lambda w: model.stateless_call(w, [], x)[0], weights)

    return tensorflow_step(given.task, logits, weights, y)


def tensorflow_step(task: str, logits: Callable[[], Any], weights: Any, y: Any) -> Step:
    """A compiled call: sum of the losses and its gradient, or the sum of the logits.

    Args:
        task: "training" or "evaluation".
        logits: Function () -> logits [..., C].
        weights: Tensors or variables of which the logits are a function.
        y: Labels [...].
    """
    import tensorflow as tf

    @tf.function
    def call() -> Any:
        if task == "evaluation":
            return tf.reduce_sum(logits())
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits())
            total = tf.reduce_sum(loss) / y.shape[-1]
        gradient = tape.gradient(total, weights)
        with tf.control_dependencies(gradient):
            return tf.identity(total)

    return lambda: float(call())


def torch_vmap(given: argparse.Namespace) -> Step:
    """`torch.func.functional_call` under `torch.vmap`."""
    import torch

    model, names, weights, x, y = torch_parts(given)
    inputs = 0 if given.task == "training" else None

    def logits(parameters: Any) -> Any:
        def one(w: Any, images: Any) -> Any:
            return torch.func.functional_call(model, dict(zip(names, w, strict=True)), (images,))

        return torch.vmap(one, in_dims=(0, inputs))(parameters, x)

    def loss(parameters: Any) -> Any:
        flat = logits(parameters).flatten(0, 1)
        return torch.nn.functional.cross_entropy(flat, y.flatten()) * given.networks

    if given.task == "evaluation":
        with torch.no_grad():
            return lambda: float(logits(weights).sum())
    whole = torch.func.grad_and_value(loss)
    return lambda: float(whole(weights)[1])


def torch_loop(given: argparse.Namespace) -> Step:
    """N PyTorch models, one after the other."""
    import copy

    import torch

    model, _, weights, x, y = torch_parts(given)
    models = []
    for number in range(given.networks):
        models.append(copy.deepcopy(model))
        with torch.no_grad():
            for parameter, values in zip(models[-1].parameters(), weights, strict=True):
                parameter.copy_(values[number])

    def call() -> float:
        total = 0.0
        for number, one in enumerate(models):
            if given.task == "evaluation":
                with torch.no_grad():
                    total += float(one(x).sum())
                continue
            one.zero_grad()
            loss = torch.nn.functional.cross_entropy(one(x[number]), y[number])
            loss.backward()
            total += float(loss)
        return total

    return call


def torch_parts(given: argparse.Namespace) -> tuple[Any, list[str], tuple[Any, ...], Any, Any]:
    """The target in PyTorch, its parameters' names, their values [N, ...], images and labels.

    Args:
        given: The arguments.
    """
    import torch
    from torch import nn

    class Flatten(nn.Module):
        """Keras's order: channels last."""

        def forward(self, values: Any) -> Any:
            return values.movedim(-3, -1).flatten(-3)

    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 10)),
    )
    arrays = [
        w.transpose(0, *range(w.ndim - 1, 0, -1)[:2], 1, 2) if w.ndim == 5 else w
        for w in weights_of(given.networks)
    ]
    arrays = [np.ascontiguousarray(w.transpose(0, 2, 1) if w.ndim == 3 else w) for w in arrays]
    x, y = batch_of(given.networks, given.images, given.task)
    images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, -3)))
    names = [name for name, _ in model.named_parameters()]
    weights = tuple(map(torch.from_numpy, arrays))
    return model, names, weights, images, torch.from_numpy(y.astype("int64"))


TENSORFLOW = (hypernet_tf, keras_loop, map_fn, vectorized_map)
TORCH = (torch_vmap, torch_loop)
WAYS = {way.__name__: way for way in (*TENSORFLOW, *TORCH)}


# ---- the processes -------------------------------------------------------------------------------


def work(given: argparse.Namespace) -> None:
    """A process of one way: a line `first seconds, number`, a line for each line it reads, memory.

    Args:
        given: The arguments.
    """
    started = time.perf_counter()
    step = WAYS[given.worker](given)
    number = step()
    print(f"{time.perf_counter() - started} {number}", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        print(time.perf_counter() - started, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


def measure(given: argparse.Namespace, task: str) -> None:
    """Run all ways in turns, and print a row for each.

    Args:
        given: The arguments.
        task: "training" or "evaluation".
    """
    pythons = {way.__name__: sys.executable for way in TENSORFLOW}
    if given.torch_python:
        pythons |= {way.__name__: given.torch_python for way in TORCH}
    workers, first, numbers = {}, {}, {}
    for name, python in pythons.items():
        worker = subprocess.Popen(
            [
                *(python, str(pathlib.Path(__file__).resolve()), f"--worker={name}"),
                *(f"--networks={given.networks}", f"--images={given.images}", f"--task={task}"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout
        words = worker.stdout.readline().split()
        if not words:
            print(f"{name}: does not run here", file=sys.stderr)
            continue
        workers[name] = worker
        first[name], numbers[name] = map(float, words)
    expected = next(iter(numbers.values()))
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(given.rounds + 2):
        for name, worker in workers.items():
            assert worker.stdin and worker.stdout
            worker.stdin.write("\n")
            worker.stdin.flush()
            value = float(worker.stdout.readline())
            if turn >= 2:
                seconds[name].append(value)
    ours = np.array(next(iter(seconds.values())))
    print(f"\n{task}, {given.networks} networks\n")
    print("| | median (ms) | ratio to hypernet_tf | first call (s) | peak memory (MiB) | same |")
    print("|---|---:|---:|---:|---:|---|")
    for name, worker in workers.items():
        memory = float(worker.communicate()[0])
        values = np.array(seconds[name])
        low, middle, high = np.quantile(values / ours, [0.25, 0.5, 0.75])
        same = np.isclose(numbers[name], expected, rtol=1e-4)
        print(
            f"| {name} | {1e3 * np.median(values):.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) "
            f"| {first[name]:.1f} | {memory:,.0f} | {'yes' if same else 'NO'} |"
        )


def main() -> None:
    """Measure both tasks and print their tables, or be the process of one way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--torch_python", help="an interpreter that has PyTorch")
    parser.add_argument("--worker", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given)
        return
    for task in ("training", "evaluation"):
        measure(given, task)


if __name__ == "__main__":
    main()
