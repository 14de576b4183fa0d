"""What the default hypernetwork learns, beside the ordinary Keras model on the same epochs.

Both are compiled with "adam" and fitted with Keras's default batch size. The numbers are accuracies
(for regression mean squared errors) on held-out examples: those of the model itself, of 100
networks of `hn.Hypernetwork(model)` with nothing else, and of their vote (their mean).

    python -m benchmarks.defaults --cases digits breast_cancer wine diabetes --seeds 0 1 2
    python -m benchmarks.defaults --cases fashion --seeds 0 1

`fashion` needs the idx files of Debian's package dataset-fashion-mnist or a network.
"""

import argparse
import time

import keras
import numpy as np
import sklearn.datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import hypernet_tf as hn

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def digits(seed):
    """A small convolutional model on 5,000 digits, 10 epochs."""
    layers = keras.layers
    data = hn.data.load("mnist_5k")
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, strides=2, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    return model, LOGITS, 10, data.train.x, data.train.y, data.test.x, data.test.y


def fashion(seed):
    """The MNIST target on Fashion-MNIST, 2 epochs."""
    data = hn.data.load("fashion_mnist")
    return hn.zoo.mnist(), LOGITS, 2, data.train.x, data.train.y, data.test.x, data.test.y


def table(load, classes):
    """A small MLP on a table of scikit-learn's, 10 epochs."""

    def case(seed):
        x, y = load(return_X_y=True)
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, random_state=seed)
        scale = StandardScaler().fit(x)
        x, x_test = (scale.transform(a).astype("float32") for a in (x, x_test))
        if classes is None:  # regression, on standardised values
            mean, std = y.mean(), y.std()
            y, y_test = ((a[:, None].astype("float32") - mean) / std for a in (y, y_test))
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input(x.shape[1:]),
                layers.Dense(16, activation="relu"),
                layers.Dense(classes or 1),
            ]
        )
        return model, LOGITS if classes else "mse", 10, x, y, x_test, y_test

    return case


CASES = {
    "digits": digits,
    "fashion": fashion,
    "breast_cancer": table(sklearn.datasets.load_breast_cancer, 2),
    "wine": table(sklearn.datasets.load_wine, 3),
    "diabetes": table(sklearn.datasets.load_diabetes, None),
}


def main():
    """Train both, print a line for each case and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    for name in arguments.cases:
        for seed in arguments.seeds:
            keras.utils.set_random_seed(seed)
            model, loss, epochs, x, y, x_test, y_test = CASES[name](seed)
            start = time.monotonic()
            hyper = hn.Hypernetwork(model)
            hyper.compile("adam", loss)
            hyper.fit(x, y, epochs=epochs, verbose=0)
            hyper_seconds = time.monotonic() - start
            start = time.monotonic()
            model.compile("adam", loss)
            model.fit(x, y, epochs=epochs, verbose=0)
            seconds = time.monotonic() - start
            single = hn.Ensemble.from_keras(hn.Target(model), model) if loss == "mse" else None
            result = hyper.sample(100).evaluate(x_test, y_test)
            if single is not None:
                ordinary = single.evaluate(x_test, y_test).mean_squared_error
                numbers = result.member_mean_squared_error.mean(), result.mean_squared_error
                shown = [f"{value:.3f}" for value in (ordinary, *numbers)]
            else:
                ordinary = np.mean(model.predict(x_test, verbose=0).argmax(-1) == y_test)
                numbers = result.member_accuracy.mean(), result.majority_vote_accuracy
                shown = [f"{100 * value:.2f}" for value in (ordinary, *numbers)]
            print(
                f"{name}, seed {seed}: ordinary {shown[0]}, members {shown[1]}, ensemble "
                f"{shown[2]}; {seconds:.0f} s and {hyper_seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
