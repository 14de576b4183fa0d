"""LeNet alone, trained by Keras's own `fit`: what one network reaches on CIFAR-10.

Images are normalised, and SGD with Nesterov's momentum minimises the cross-entropy and a penalty on
all kernels, at a rate that falls along a cosine, and may rise to it first. At most twenty times it
prints the accuracy on the test images, and on the training images of the epoch, changed as they are
in training; and how many filters of each layer are zero on all of 2,000 test images.

    python -m benchmarks.lenet --data_dir DIR --epochs 30
    python -m benchmarks.lenet --data_dir DIR --epochs 30 --margin 0       flips without crops
    python -m benchmarks.lenet --data_dir DIR --epochs 30 --compress 2     more lossy images
    python -m benchmarks.lenet --data_dir DIR --dataset cifar10_jpeg:49000 --epochs 200
    python -m benchmarks.lenet --data_dir DIR --rate 0.05 --warmup 3 --clip 1      short gradients
"""

import argparse
import functools
import itertools
import time

import keras
import numpy as np
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.training.augmentation import flip_and_crop
from hypernet_tf.training.stream import batches


def parse() -> argparse.Namespace:
    """The settings of a training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10_jpeg")
    parser.add_argument("--data_dir")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--warmup", type=int, default=0, help="epochs in which the rate rises")
    parser.add_argument("--clip", type=float, help="longest gradient of a variable")
    parser.add_argument("--activation", default="relu", help="of all layers but the last")
    parser.add_argument("--penalty", type=float, default=1e-4, help="factor on half the squares")
    parser.add_argument("--margin", type=int, default=4, help="largest shift of an image, pixels")
    parser.add_argument("--compress", type=int, default=0, help="how often images become JPEG")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def compressed(images: np.ndarray, times: int) -> np.ndarray:
    """Images [M, H, W, 3] after compression as JPEG, each time with its blocks at other places.

    Args:
        images: Pixels from 0 to 255.
        times: How often they are compressed, at quality 75 with half the resolution of colour.
    """
    for down, right in itertools.islice(itertools.cycle([(4, 4), (2, 6), (6, 2)]), times):
        moved = np.pad(images, ((0, 0), (down, 8 - down), (right, 8 - right), (0, 0)), "edge")
        files = (tf.io.encode_jpeg(image, quality=75, chroma_downsampling=True) for image in moved)
        rows, columns = slice(down, down - 8), slice(right, right - 8)
        images = np.stack([tf.io.decode_jpeg(file).numpy()[rows, columns] for file in files])
    return images


def build(images: np.ndarray, activation: str, penalty: float) -> keras.Sequential:
    """LeNet behind a normalisation, with a penalty on its kernels."""
    layers: list[keras.layers.Layer] = []
    for layer in hn.zoo.lenet().layers:
        config = layer.get_config()
        if "kernel_regularizer" in config:
            config["kernel_regularizer"] = keras.regularizers.L2(penalty / 2)
        if config.get("activation") == "relu":
            config["activation"] = activation
        layers.append(type(layer).from_config(config))
    mean, variance = images.mean((0, 1, 2)) / 255, images.var((0, 1, 2)) / 255**2
    norm = keras.layers.Normalization(mean=mean, variance=variance)
    # In float32 at the end, where a softmax of half precision would round.
    last = keras.layers.Activation("linear", dtype="float32")
    return keras.Sequential([keras.Input(images.shape[1:]), norm, *layers, last])


def dead_filters(model: keras.Sequential, x: np.ndarray) -> list[int]:
    """How many filters of each hidden layer are zero on all examples."""
    hidden = [layer.output for layer in model.layers if hasattr(layer, "kernel")][:-1]
    outputs = keras.Model(model.inputs, hidden).predict(x, batch_size=500, verbose=0)
    return [int((np.abs(o).max(tuple(range(o.ndim - 1))) == 0).sum()) for o in outputs]


def main() -> None:
    """Train and print."""
    given = parse()
    keras.utils.set_random_seed(given.seed)
    keras.config.set_dtype_policy(given.precision)
    dataset = hn.data.load(given.dataset, given.data_dir)
    train, test = (
        hn.data.Split(compressed(split.images, given.compress), split.labels)
        for split in (dataset.train, dataset.test)
    )
    if given.compress:
        change = np.sqrt(np.mean((test.x - dataset.test.x) ** 2))
        print(f"compression changes pixels by {change:.4f} of their range, root mean square")
    model = build(train.images, given.activation, given.penalty)
    steps = len(train) // given.batch
    warmup = given.warmup * steps
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else given.rate,
        given.epochs * steps - warmup,
        warmup_target=given.rate if warmup else None,
        warmup_steps=warmup,
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, clipnorm=given.clip),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    data = batches(
        train,
        batch_size=given.batch,
        seed=given.seed,
        augment=functools.partial(flip_and_crop, margin=given.margin),
    ).map(lambda x, y: (tf.ensure_shape(x, [given.batch, *x.shape[1:]]), y))
    examples = tf.data.Dataset.from_tensor_slices((test.x, test.y)).batch(1_000)
    start, every, accuracies = time.monotonic(), -(-given.epochs // 20), []

    def report(epoch: int, logs: dict[str, float]) -> None:
        if (epoch + 1) % every and epoch + 1 < given.epochs:
            return
        accuracies.append(model.evaluate(examples, verbose=0)[1])
        print(
            f"epoch {epoch + 1}: training images {logs['accuracy']:.2%}, test images "
            f"{accuracies[-1]:.2%}, best {max(accuracies):.2%}, dead filters "
            f"{dead_filters(model, test.x[:2_000])}, {time.monotonic() - start:.0f} s",
            flush=True,
        )

    model.fit(
        data,
        epochs=given.epochs,
        steps_per_epoch=steps,
        shuffle=False,  # the batches are in their order
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)],
        verbose=0,
    )


if __name__ == "__main__":
    main()
