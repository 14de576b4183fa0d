"""How far convolutions should stay unrolled over networks, and what sharing inputs saves.

First the MNIST target's convolutions with one kernel per network, forward and backward, N = B = 32,
alternated with one ordinary CNN on the same images: only the convolution unrolled, then its bias
and ReLU too, then pooling as well. Then the first layer on shared inputs, forward: N convolutions
against one with N·F filters.

    python -m benchmarks.value_forms
"""

import numpy as np
import tensorflow as tf

import hypernet_tf as hn
from benchmarks.ratios import alternate

N = B = 32


def compare(functions, rounds=10):
    """Median seconds of each function, and the median ratio to the first, in one run."""
    seconds = alternate([*functions.values()], rounds + 2)[2:].T
    for name, values in zip(functions, seconds, strict=True):
        ratio = np.median(values / seconds[0])
        print(f"  {name}: {1e3 * np.median(values):.1f} ms, ratio {ratio:.2f}")


def convolve(x, kernel, bias=None):
    """A 'same' convolution; with a bias, that and ReLU too."""
    outputs = tf.nn.conv2d(x, kernel, 1, "SAME")
    return outputs if bias is None else tf.nn.relu(tf.nn.bias_add(outputs, bias))


def pool(x):
    """Max pooling 2 'same'."""
    return tf.nn.max_pool2d(x, 2, 2, "SAME")


def whole_network(unrolled):
    """A function: loss and gradients of N networks, unrolled up to a stage of each convolution."""
    target = hn.zoo.mnist()
    weights = [tf.random.normal([N, *v.shape], stddev=0.1) for v in target.trainable_variables]
    x = tf.random.uniform([N, B, 28, 28, 1])
    y = tf.random.uniform([N, B], 0, 10, tf.int32)

    def forward(weights):
        values = x
        for kernel, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
            parts = zip(*map(tf.unstack, (values, kernel, bias)), strict=True)
            if unrolled == "convolution":
                values = tf.stack([convolve(v, k) for v, k, _ in parts])
                values = tf.nn.relu(values + bias[:, None, None, None])
            else:
                parts = [convolve(*part) for part in parts]
                values = tf.stack(list(map(pool, parts)) if unrolled == "pooling" else parts)
            if unrolled != "pooling":
                values = pool(tf.reshape(values, [N * B, *values.shape[2:]]))
                values = tf.reshape(values, [N, B, *values.shape[1:]])
        values = tf.reshape(values, [N, B, -1])
        values = tf.nn.relu(values @ weights[4] + weights[5][:, None])
        return values @ weights[6] + weights[7][:, None]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits = forward(weights)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        return tape.gradient(loss, weights)

    return step


def ordinary():
    """A function: loss and gradients of one CNN on N·B images."""
    model = hn.zoo.mnist()
    x = tf.random.uniform([N * B, 28, 28, 1])
    y = tf.random.uniform([N * B], 0, 10, tf.int32)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    return step


def shared_inputs(networks, images):
    """Two functions: the first layer of N networks on the same images."""
    x = tf.random.uniform([images, 28, 28, 1])
    kernel, bias = tf.random.normal([networks, 5, 5, 1, 32]), tf.random.normal([networks, 32])

    @tf.function
    def unrolled():
        parts = zip(tf.unstack(kernel), tf.unstack(bias), strict=True)
        return [tf.reduce_sum(pool(convolve(x, *part))) for part in parts]

    @tf.function
    def one():
        wide = tf.reshape(tf.transpose(kernel, [1, 2, 3, 0, 4]), [5, 5, 1, -1])
        outputs = pool(convolve(x, wide, tf.reshape(bias, [-1])))
        return [tf.reduce_sum(part) for part in tf.split(outputs, networks, -1)]

    return {"N convolutions": unrolled, "one of N·F filters": one}


if __name__ == "__main__":
    print("forward and backward:")
    stages = ("convolution", "bias and ReLU", "pooling")
    compare(
        {"ordinary CNN": ordinary()}
        | {f"unrolled up to {stage}": whole_network(stage) for stage in stages}
    )
    for networks, images in ((20, 500), (32, 128), (50, 100)):
        print(f"shared inputs, {networks} networks, {images} images:")
        compare(shared_inputs(networks, images))
