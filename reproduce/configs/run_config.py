"""`RunConfig`: everything that a run depends on, in one flat record."""

from __future__ import annotations

import dataclasses

PRESETS = ("paper", "fast", "quick")
# Fields that flags of the same names set, in the order of a folder's name; and `steps`, which it
# leaves out.
FLAG_FIELDS = (
    *("dataset", "method", "lam", "seed", "num_networks"),
    *("preset", "match", "precision", "jit_compile", "target", "diversity", "ablation"),
    *("learning_rate", "learning_rate_left", "learning_rate_schedule", "warmup_steps"),
    *("networks_per_step", "hypernetworks", "images_per_network", "crop_margin"),
    *("optimizer", "momentum", "l2"),
)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The configuration of one run; config.json of its folder holds it.

    Attributes:
        experiment: Name of the experiment, "mnist" or "cifar": the command that runs it.
        method: Name of the method, a key of `reproduce.configs.methods.METHODS`.
        preset: "paper", "fast" or "quick".
        target: Name of the target, a key of `reproduce.configs.targets.TARGETS`.
        steps: Number of training steps.
        num_networks: Number of networks of the evaluated ensemble.
        networks_per_step: N, number of networks in a training step.
        images_per_network: B, number of images of each network in a training step.
        learning_rate: Learning rate of the first step, or after `warmup_steps`.
        learning_rate_decay: Factor on the learning rate after each step.
        learning_rate_left: Fraction of the learning rate that is left after the last step; if it is
            above 0, `learning_rate_decay` follows from it and the number of steps.
        learning_rate_schedule: "exponential", a factor on the rate after each step, or "cosine",
            which falls to `learning_rate_left` and keeps the rate high for longer.
        warmup_steps: Number of first steps in which a rate that falls as a cosine, without
            restarts, rises from 0 to `learning_rate`.
        restart_every: Number of steps between restarts of a learning rate that falls as a cosine,
            to a ten thousandth; 0 for no restarts.
        optimizer: "adam" or "sgd".
        momentum: Momentum of SGD.
        validate_every: Number of steps between validations.
        checkpoint_every: Number of steps between checkpoints.
        snapshot_every: Number of steps between snapshots of a chain; 0 for a twentieth of the run.
        dataset: Name of the data set.
        augment: Whether training images are changed at random, as their data set says.
        crop_margin: Largest shift of a training image, in pixels, where they are shifted.
        l2: Each network's loss gets l2 / 2 times the sum of its squared weights; lam multiplies it.
        lam: Factor on the accuracy loss, for methods that balance it against diversity.
        architecture: Sizes and initialization of a hypernetwork: "published" for the target, or
            "default", those of `hypernet_tf.Hypernetwork`.
        diversity: What a hypernetwork's networks are to differ in, a key of
            `reproduce.configs.methods.DIVERSITY`.
        hypernetworks: Number of hypernetworks of a mixture.
        ablation: What HyperGAN goes without, a key of `reproduce.configs.methods.ABLATIONS`.
        match: Path, from the run's folder, of the run whose distances a noise control has, or whose
            networks a method learns; "" for other methods.
        precision: Keras dtype policy of the layers' computations.
        jit_compile: Whether XLA compiles the training step, which then draws other random numbers.
        seed: Seed of weights, latent vectors and the order of the data.
    """

    experiment: str
    method: str
    preset: str
    target: str
    steps: int
    num_networks: int
    networks_per_step: int
    images_per_network: int
    learning_rate: float
    learning_rate_decay: float = 1.0
    learning_rate_left: float = 0.0
    learning_rate_schedule: str = "exponential"
    warmup_steps: int = 0
    restart_every: int = 0
    optimizer: str = "adam"
    momentum: float = 0.0
    validate_every: int = 1_000
    checkpoint_every: int = 250
    snapshot_every: int = 0
    dataset: str = "mnist"
    augment: bool = False
    crop_margin: int = 4
    l2: float = 0.0
    lam: float = 1.0
    architecture: str = "published"
    diversity: str = "weights"
    hypernetworks: int = 4
    ablation: str = "nothing"
    match: str = ""
    precision: str = "float32"
    jit_compile: bool = False
    seed: int = 0

    @property
    def passes_per_step(self) -> int:
        """Images that go through a target network, forward and backward, in a training step."""
        from reproduce.configs.methods import METHODS  # which imports this module

        return self.images_per_step * METHODS[self.method].passes(self)

    @property
    def images_per_step(self) -> int:
        """Images of all networks in a training step."""
        return self.networks_per_step * self.images_per_network

    def with_steps(self, steps: int) -> RunConfig:
        """The same run, longer or shorter; the rate rises in the same part of the training.

        Args:
            steps: Number of training steps.
        """
        warmup_steps = self.warmup_steps * steps // self.steps
        return dataclasses.replace(self, steps=steps, warmup_steps=warmup_steps)

    def with_step_of(self, *, networks_per_step: int, images_per_network: int) -> RunConfig:
        """The same run, each step of which takes other numbers of networks and images.

        Validations, checkpoints, snapshots and restarts stay as many image passes apart, and the
        learning rate rises for as many, rounded down to whole steps; the number of steps stays the
        same.

        Args:
            networks_per_step: N.
            images_per_network: B.
        """
        images = networks_per_step * images_per_network

        def rescaled(steps: int) -> int:
            return max(1, steps * self.images_per_step // images) if steps else 0

        return dataclasses.replace(
            self,
            networks_per_step=networks_per_step,
            images_per_network=images_per_network,
            validate_every=rescaled(self.validate_every),
            checkpoint_every=rescaled(self.checkpoint_every),
            snapshot_every=rescaled(self.snapshot_every),
            restart_every=rescaled(self.restart_every),
            warmup_steps=rescaled(self.warmup_steps),
        )

    @property
    def image_passes(self) -> int:
        """Images that go through a target network, forward and backward, in the run."""
        return self.steps * self.passes_per_step

    @property
    def follows_steps(self) -> bool:
        """Whether more steps would change the run from its first step."""
        from reproduce.configs.methods import METHODS  # which imports this module

        spread = METHODS[self.method].takes_snapshots and not self.snapshot_every
        falls = bool(self.learning_rate_left) or self.learning_rate_schedule == "cosine"
        return (falls and not self.restart_every) or spread

    @property
    def decay_per_step(self) -> float:
        """Factor on the learning rate after each step."""
        if self.learning_rate_left:
            return self.learning_rate_left ** (1 / self.steps)
        return self.learning_rate_decay

    @property
    def steps_between_snapshots(self) -> int:
        """Number of steps between snapshots of a chain."""
        return self.snapshot_every or max(self.steps // 20, 1)
