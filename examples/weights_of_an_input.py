"""Weights that depend on an input: a filter that is computed from an angle, example by example.

  python examples/weights_of_an_input.py

Each image of noise is convolved with a derivative of a Gaussian in a direction of its own. Which
filter that is, a dense layer computes from the direction (cos φ, sin φ). It is trained end to end:

  (cos φ, sin φ) ──► Dense ──► theta [N, D] ──► TargetLayer ──► filtered image [N, 8, 8, 1]
                                     image [N, 12, 12, 1] ──┘

One dense layer is enough, because the derivative in direction φ is cos φ G_x + sin φ G_y (Freeman
and Adelson 1991, "The design and use of steerable filters"). Brabandere et al. 2016, "Dynamic
Filter Networks", arXiv 1605.09673, learn such filters with a deeper network.
"""

import keras
import numpy as np

import hypernet_tf as hn

SIZE = 5  # of the filter


def true_filters(angles: np.ndarray) -> np.ndarray:
    """The derivative of a Gaussian in each direction, [M, SIZE, SIZE], of unit norm."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    along = np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y
    filters = along * np.exp(-(x**2 + y**2) / 2)
    return filters / np.sqrt((filters**2).sum((1, 2), keepdims=True))


def filtered_noise(num_examples: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Directions [M, 2] and images [M, 12, 12, 1], and the filtered images [M, 8, 8, 1]."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0.0, 2 * np.pi, num_examples)
    images = rng.normal(size=(num_examples, 12, 12))
    windows = np.lib.stride_tricks.sliding_window_view(images, (SIZE, SIZE), axis=(1, 2))
    filtered = np.einsum("mhwij,mij->mhw", windows, true_filters(angles))
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    inputs = [directions.astype("float32"), images[..., None].astype("float32")]
    return inputs, filtered[..., None].astype("float32")


def main(epochs: int = 20) -> None:
    """Train the conditional filter and an ordinary one; print their errors on new examples."""
    keras.utils.set_random_seed(0)
    inputs, filtered = filtered_noise(512, seed=0)
    new_inputs, new_filtered = filtered_noise(256, seed=1)
    layers = keras.layers
    image = keras.Input((12, 12, 1))
    network = keras.Model(image, layers.Conv2D(1, SIZE, use_bias=False)(image))

    target = hn.Target(network)
    direction = keras.Input((2,))
    theta = layers.Dense(target.weight_count, use_bias=False, name="theta")(direction)
    conditional = keras.Model(
        [direction, image], hn.TargetLayer(target, examples="one_each")((theta, image))
    )
    for model, x in ((network, inputs[1]), (conditional, inputs)):
        model.compile(keras.optimizers.Adam(0.02), "mse")
        model.fit(x, filtered, batch_size=32, epochs=epochs, verbose=0)

    angles = np.linspace(0.0, 2 * np.pi, 8, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], 1).astype("float32")
    learnt = conditional.get_layer("theta")(directions).numpy()
    learnt /= np.linalg.norm(learnt, axis=1, keepdims=True)
    cosines = (learnt * true_filters(angles).reshape(8, -1)).sum(1)
    print("                 mean squared error on new examples")
    one_filter = network.evaluate(new_inputs[1], new_filtered, verbose=0)
    print(f"one filter       {one_filter:.4f}")
    print(f"one per example  {conditional.evaluate(new_inputs, new_filtered, verbose=0):.4f}")
    print(f"cosine of learnt and true filters in 8 directions: at least {cosines.min():.4f}")


if __name__ == "__main__":
    main()
