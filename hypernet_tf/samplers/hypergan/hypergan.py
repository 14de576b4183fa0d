"""HyperGAN: noise -> mixer -> a code for each layer -> weights (Ratzlaff, Fuxin 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf
from tqdm import tqdm

from hypernet_tf.checks import (
    check_choice,
    check_count,
    check_number,
    check_sizes,
    check_sizes_per_layer,
)
from hypernet_tf.diversity import DiversityTerm, PriorDiscriminator, moment_error
from hypernet_tf.diversity.prior import half_squares
from hypernet_tf.samplers.draws import PRETRAIN, Draw, stream_seed
from hypernet_tf.samplers.hypergan.layers import LayerGenerator, Mixer
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.targets import Target

Codes = Literal["mixed", "independent"]
Initialization = Literal["scaled", "model"]

# Draws in a step of the mixer's pretraining.
PRETRAIN_SAMPLES = 1_000


@keras.saving.register_keras_serializable(package="hypernet_tf")
class HyperGAN(LatentSampler):
    """A generative model of weights: a mixer, and a generator for each layer.

    Noise s -> mixer -> one code per layer, which are correlated -> the layer's generator -> all its
    weights and biases. A discriminator, trained beside, keeps the codes close to their prior
    N(0, I), so that networks do not become one. Mixer and generators minimise

        lam · accuracy loss + weight · adversarial loss + l2 / 2 · sum of squared variables

    The adversarial loss is the diversity term `PriorDiscriminator`, and its weight is the published
    beta; in the paper's own program lam is beta, and the weight 10. `PriorMoments` is a distance to
    the prior without a discriminator.

    The latent vector z of a network is all its standard normals: s, then the noise that is added
    to the mixer's input, then the noise on the codes. Both are there at evaluation too. "Layers"
    are the target's `units`: batch normalisation is generated with the layer before it. Training
    steps run on the weights as they are; samples are gauge-fixed.

    Before the first step `fit` pretrains the mixer (`pretrain_mixer`). `fit` also reports
    `discriminator_loss` and `discriminator_accuracy`. `norm_spread` is the paper's measure of
    diversity, which `hn.DiversityStopping` follows.

    Args:
        target: The `Target`, or a Keras model.
        num_networks: N, number of networks that a training step draws, at least 2; published: 100.
        lam: Factor on the accuracy loss.
        noise_dim: Dimension of s.
        code_dim: Size of a code.
        mixer_hidden: Hidden sizes of the mixer.
        generator_hidden: Hidden sizes of the generators; one tuple for all, or one per layer.
        mixer_activation: Activation of the mixer, a Keras name.
        generator_activation: Activation of the generators; published: "elu" for MNIST, "relu" for
            CIFAR.
        mixer_noise: Standard deviation of the noise on the mixer's input.
        generator_noise: Standard deviation of the noise on the codes.
        codes: "mixed", or "independent" for the ablation without a mixer: codes are draws of the
            prior, and there is no discriminator.
        initialization: How fast weights move, which the model's own initializers draw first.
            "scaled": the outputs of mixer and generators are scaled so that one step of Adam at its
            usual rate of 1e-3 moves a weight by about 0.01. "model": they are not, as in
            the published program, whose rate is 1e-4.
        scatter: Initial scatter of the networks, as a fraction of that of independent draws of the
            model's initializers; 1 as published. Below 1 the networks lie around a common draw, and
            learn sooner.
        l2: Factor of L2 in the gradient of the variables; published: 5e-4, without scaled outputs.
            (The kernels behind scaled outputs are larger, and would mostly shrink.)
        pretrain_steps: Greatest number of steps of the mixer's pretraining; 0 for none.
        pretrain_error: Error at which it stops, see `pretrain_mixer`.
        shared_inputs: Whether all networks of a step see the same images.
        diversity: A diversity term or a list of them; None for `PriorDiscriminator()`, and [] for
            the ablation without a discriminator.
        **kwargs: Options of `WeightSampler`: lam_growth, prior_scale, gauge, seed, ...

    Raises:
        ValueError: An argument is out of range, or its length is not the number of layers.

    Example:
        >>> gan = HyperGAN(model)                              # any Keras model
        >>> gan.compile("adam", SparseCategoricalCrossentropy(from_logits=True))
        >>> gan.fit(x, y, batch_size=32, epochs=10)            # each network sees all 32 images
        >>> gan.sample(100).evaluate(x_test, y_test)
        >>> published = HyperGAN(zoo.hypergan_mnist(), num_networks=100, initialization="model",
        ...     scatter=1.0, l2=5e-4)                          # 17,557,504 parameters
        >>> published.compile(Adam(1e-4), SparseCategoricalCrossentropy(from_logits=True))
        >>> published.fit(x, y, batch_size=100)

    Reference: "HyperGAN: A Generative Model for Diverse, Performant Neural Networks",
    arXiv 1901.11058.
    """

    trains_in_gauge = False
    min_networks = 2  # batch normalisation is over the networks of a step

    def __init__(
        self,
        target: Target,
        *,
        num_networks: int = 16,
        lam: float = 1.0,
        noise_dim: int = 256,
        code_dim: int = 64,
        mixer_hidden: Sequence[int] = (512, 512),
        generator_hidden: Sequence[int] | Sequence[Sequence[int]] = (512, 512),
        mixer_activation: str = "relu",
        generator_activation: str = "elu",
        mixer_noise: float = 0.01,
        generator_noise: float = 0.01,
        codes: Codes = "mixed",
        initialization: Initialization = "scaled",
        scatter: float = 0.3,
        l2: float = 0.0,
        pretrain_steps: int = 1_000,
        pretrain_error: float = 0.1,
        shared_inputs: bool = True,
        diversity: DiversityTerm | list[DiversityTerm] | None = None,
        **kwargs: Any,
    ):
        check_choice("codes", codes, Codes)
        check_choice("initialization", initialization, Initialization)
        if diversity is None:
            diversity = [PriorDiscriminator()] if codes == "mixed" else []
        super().__init__(
            target,
            num_networks=num_networks,
            lam=lam,
            diversity=diversity,
            shared_inputs=shared_inputs,
            **kwargs,
        )
        self.noise_dim = check_count("noise_dim", noise_dim)
        self.code_dim = check_count("code_dim", code_dim)
        for name, number in (
            ("mixer_noise", mixer_noise),
            ("generator_noise", generator_noise),
            ("l2", l2),
            ("pretrain_steps", pretrain_steps),
            ("pretrain_error", pretrain_error),
        ):
            check_number(name, number, above_zero=False)
        if not 0 < scatter <= 1:
            raise ValueError(f"scatter is {scatter}: give a number above 0, at most 1.")
        units = self.target.units
        mixer_hidden = check_sizes("mixer_hidden", mixer_hidden)
        names = [unit[0].name for unit in units]
        hidden = check_sizes_per_layer("generator_hidden", generator_hidden, names)
        self.mixer_noise, self.generator_noise, self.l2 = mixer_noise, generator_noise, l2
        self.pretrain_steps, self.pretrain_error = pretrain_steps, pretrain_error
        self._arguments = {
            "noise_dim": noise_dim,
            "code_dim": code_dim,
            "mixer_hidden": list(mixer_hidden),
            "generator_hidden": [list(sizes) for sizes in hidden],
            "mixer_activation": mixer_activation,
            "generator_activation": generator_activation,
            "mixer_noise": mixer_noise,
            "generator_noise": generator_noise,
            "codes": codes,
            "initialization": initialization,
            "scatter": scatter,
            "l2": l2,
            "pretrain_steps": pretrain_steps,
            "pretrain_error": pretrain_error,
        }
        options: dict[str, Any] = {
            "scale_output": initialization == "scaled",
            "dtype": self.dtype_policy,
        }
        self.mixer: Mixer | None = None
        if codes == "mixed":
            self.mixer = Mixer(
                mixer_hidden,
                [(code_dim, 1.0)] * len(units),
                activation=mixer_activation,
                shift=True,
                name="mixer",
                **options,
            )
            self.mixer.build((None, noise_dim))
        self.generators: list[LayerGenerator] = []
        for number, (unit, sizes) in enumerate(zip(units, hidden, strict=True), 1):
            slots = [slot for layer in unit for slot in layer.slots]
            generator = LayerGenerator(
                sizes,
                [(slot.size, *slot.moments()) for slot in slots],
                scatter=scatter,
                activation=generator_activation,
                shift=False,
                name=f"generator{number}",
                **options,
            )
            generator.build((None, code_dim))
            self.generators.append(generator)
        self._parts = {
            "noise": noise_dim if self.mixer else len(units) * code_dim,
            "mixer_noise": noise_dim if self.mixer and mixer_noise else 0,
            "generator_noise": len(units) * code_dim if generator_noise else 0,
        }
        self.latent_dim = sum(self._parts.values())
        self.pretrained = self.add_weight(
            name="pretrained",
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )
        self.built = True

    @property
    def manifold_dim(self) -> int:
        """At most the numbers of the codes and, where these follow from one s, its numbers."""
        codes = len(self.generators) * self.code_dim
        is_free = self.mixer is None or self._parts["generator_noise"]
        return min(codes if is_free else min(codes, self.noise_dim), self.target.weight_count)

    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """Draw standard normals [N, d]: s, then the noise on the mixer's input and on the codes."""
        return tf.random.stateless_normal([count, self.latent_dim], seed)

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Make the weights of networks from latent vectors.

        Args:
            z: Latent vectors [N, d].
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            A `Draw` with `z` and `codes`.
        """
        noise, mixer_noise, code_noise = tf.split(z, list(self._parts.values()), axis=-1)
        units = self.target.units
        shape = [-1, len(units), self.code_dim]
        if self.mixer:
            codes = self._mixed(noise, mixer_noise, training=training)
        else:
            codes = tf.reshape(noise, shape)
        inputs = codes
        if self._parts["generator_noise"]:
            noise = tf.cast(tf.reshape(code_noise, shape), codes.dtype)
            inputs = codes + self.generator_noise * noise
        # In mixed precision, gauge and diversity are computed in the precision of variables.
        rows = [
            tf.cast(generator(inputs[:, index], training=training), self.variable_dtype)[:, None]
            for index, generator in enumerate(self.generators)
        ]
        return Draw(
            self.target.assemble_units(rows),
            z,
            [code[:, None] for code in tf.unstack(codes, axis=1)],
        )

    def _mixed(self, noise: tf.Tensor, more: tf.Tensor, *, training: bool) -> tf.Tensor:
        """The mixer's codes [N, layers, code_dim] of s and of the noise on its input."""
        if self._parts["mixer_noise"]:
            noise += self.mixer_noise * more
        return self.mixer(noise, training=training)  # type: ignore[misc]

    def extra_loss(self, drawn: Draw) -> tf.Tensor:
        """L2 of all variables of mixer and generators."""
        return half_squares(self.l2, self.generating_variables)

    # ---- pretraining ----------------------------------------------------------------------

    def initialize(self, x: Any = None, *, verbose: int = 0) -> None:
        """Pretrain the mixer before the first step, if there is one and it has not been done.

        Args:
            x: Has no effect.
            verbose: 1 shows a progress bar.
        """
        is_new = not self.step.numpy() and not self.pretrained.numpy()
        if self.mixer and self.pretrain_steps and is_new:
            self.pretrain_mixer(verbose=verbose)

    def pretrain_mixer(
        self,
        *,
        error: float | None = None,
        max_steps: int | None = None,
        learning_rate: float = 1e-3,
        verbose: int = 0,
    ) -> tuple[int, float]:
        """Fit mean and covariance of each layer's codes to those of the prior, by Adam.

        Each step minimises the `moment_error` of 1,000 draws, averaged over layers. The codes of
        the prior itself have an error of about (code_dim + 2) / 1,000, so that codes of more than
        about 110 numbers never come below 0.1. It is a function of the sampler's seed and
        variables, and the same on any number of devices. (The published program divides
        the squared error of the covariance by code_dim² instead of code_dim; codes of size 64 that
        are all zero would then have an error of 0.016, and its threshold of 0.1 would stop
        nothing.)

        Args:
            error: Error at which it stops; None for `pretrain_error`.
            max_steps: Greatest number of steps; None for `pretrain_steps`.
            learning_rate: Learning rate of Adam.
            verbose: 1 shows a progress bar.

        Returns:
            The number of steps, and the error before the last of them.

        Raises:
            ValueError: The sampler has no mixer.
        """
        if self.mixer is None:
            raise ValueError("Cannot pretrain the mixer: codes='independent' has none.")
        error = self.pretrain_error if error is None else error
        max_steps = self.pretrain_steps if max_steps is None else max_steps
        strategy, variables = self.distribute_strategy, self.mixer.trainable_variables
        with strategy.scope():
            optimizer = keras.optimizers.Adam(learning_rate)
            optimizer.build(variables)
        sizes = [self._parts["noise"], self._parts["mixer_noise"]]

        def one_step(number: tf.Tensor) -> tf.Tensor:
            seed = stream_seed(self.seed, PRETRAIN, number)
            normals = tf.random.stateless_normal([PRETRAIN_SAMPLES, sum(sizes)], seed)
            with tf.GradientTape() as tape:
                codes = self._mixed(*tf.split(normals, sizes, axis=-1), training=True)
                codes = tf.transpose(tf.cast(codes, tf.float32), [1, 0, 2])  # [layers, M, code_dim]
                value = tf.reduce_mean(moment_error(codes))
                # The optimizer sums gradients over replicas, which all do the same.
                scaled = value / strategy.num_replicas_in_sync
            optimizer.apply(tape.gradient(scaled, variables), variables)
            return value

        @tf.function(autograph=False)
        def step(number: tf.Tensor) -> tf.Tensor:
            return strategy.experimental_local_results(strategy.run(one_step, (number,)))[0]

        done, value = 0, float("inf")
        with tqdm(total=max_steps, disable=not verbose, desc="pretraining", unit="step") as bar:
            while done < max_steps and value > error:
                value = float(step(tf.constant(done)))
                done += 1
                bar.update()
                bar.set_postfix(error=f"{value:.3g}", refresh=False)
        self.pretrained.assign(1)
        return done, value

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | self._arguments
