"""The methods: how each makes a sampler, and what it is trained with in each preset.

A method is one entry. It is then a value of `--method` and `--methods`:

    register_method(Method(name="mine", help="…", build=…, presets=(RunConfig("mnist", …), …)))

Rows of `paper` have the publications' numbers, or our choice where they give none
(docs/guides/papers.md); those of `fast` and `quick` are our choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

import hypernet_tf as hn
from reproduce.configs.experiments import EXPERIMENTS
from reproduce.configs.extensions import ExtensionError
from reproduce.configs.run_config import PRESETS, RunConfig
from reproduce.configs.targets import TARGETS, build_target, targets_of


def _unlimited(config: RunConfig) -> None:
    return None


def _passes_of_diversity(config: RunConfig) -> int:
    return DIVERSITY[config.diversity].passes


@dataclasses.dataclass(frozen=True)
class Method:
    """A way of making weights that the commands offer.

    Attributes:
        name: Value of `--method`.
        help: What it is, in the words of `--help`.
        build: Function (target, config, number of training images) -> sampler, not compiled.
        presets: One row for each experiment and preset that the method is available in; a row for
            one target only stands beside that of the experiment's default target.
        flags: Names of the flags that only some methods have and this one has.
        num_available: Function config -> the number of networks that a finite sampler holds after
            its training; None for a sampler without a limit.
        matches: Name of the method whose run `--match` names in a comparison; "" where there is
            no `--match`.
        learns_match: Whether it learns the networks of `--match`, before its training, rather than
            being matched to them after it.
        shares_images: Whether all networks of a step see the same images.
        takes_snapshots: Whether its networks are snapshots of chains, `snapshot_every` steps apart.
        tuned_as: Name of a method that is trained in the same way, whose tuned learning rate and
            batch it takes in a comparison; "" to tune the method itself.
        passes: Function config -> how often each network runs on a batch in a step; that of
            `--diversity`, unless the method compares outputs by terms of its own (2).
        learning_rate_of_mean_loss: Whether the sampler's own learning rate is the configured one
            divided by the number of training images.
    """

    name: str
    help: str
    build: Callable[[hn.Target, RunConfig, int], hn.WeightSampler]
    presets: tuple[RunConfig, ...]
    flags: tuple[str, ...] = ()
    num_available: Callable[[RunConfig], int | None] = _unlimited
    matches: str = ""
    learns_match: bool = False
    shares_images: bool = False
    takes_snapshots: bool = False
    tuned_as: str = ""
    passes: Callable[[RunConfig], int] = _passes_of_diversity
    learning_rate_of_mean_loss: bool = False


METHODS: dict[str, Method] = {}

# Flags that only some methods have; see `Method.flags`.
METHOD_FLAGS = (
    *("lam", "diversity", "ablation", "match", "networks_per_step", "hypernetworks"),
    *("optimizer", "momentum", "l2"),
)
SCHEDULES: dict[str, Callable[[float, RunConfig], Any]] = {
    "exponential": lambda rate, config: keras.optimizers.schedules.ExponentialDecay(
        rate, 1, config.decay_per_step
    ),
    "cosine": lambda rate, config: keras.optimizers.schedules.CosineDecay(
        0.0 if config.warmup_steps else rate,
        config.steps - config.warmup_steps,
        alpha=config.learning_rate_left,
        warmup_target=rate if config.warmup_steps else None,
        warmup_steps=config.warmup_steps,
    ),
}
OPTIMIZERS: dict[str, Callable[[Any, RunConfig], keras.Optimizer]] = {
    "adam": lambda schedule, config: keras.optimizers.Adam(schedule, epsilon=1e-8),
    "sgd": lambda schedule, config: keras.optimizers.SGD(schedule, momentum=config.momentum),
}


def register_method(method: Method) -> Method:
    """Make a method available to all commands.

    Args:
        method: The method.

    Raises:
        ValueError: Another method has its name; it names an unknown flag, or another method in
            `matches` without the flag "match"; or a preset row names another method, an unknown
            experiment, target, preset, optimizer, schedule or diversity, or there is none for an
            experiment's first target.
    """
    if method.name in METHODS:
        raise ValueError(f"Cannot register the method '{method.name}' twice: choose another name")
    for name in method.flags:
        if name not in METHOD_FLAGS:
            raise ValueError(
                f"The method '{method.name}' has the flag '{name}': the flags are "
                f"{', '.join(METHOD_FLAGS)}; an argument of its own is one of its `build`"
            )
    if bool(method.matches) != ("match" in method.flags):
        raise ValueError(
            f"The method '{method.name}' has one of `matches` and the flag 'match': it needs both"
        )
    for row in method.presets:
        for key, known in (
            ("preset", PRESETS),
            ("optimizer", OPTIMIZERS),
            ("learning_rate_schedule", SCHEDULES),
            ("diversity", DIVERSITY),
        ):
            if getattr(row, key) not in known:
                raise ValueError(
                    f"A preset row of the method '{method.name}' has {key} '{getattr(row, key)}': "
                    f"choose from {', '.join(known)}"
                )
        targets = targets_of(row.experiment)
        if row.method != method.name or row.target not in targets:
            raise ValueError(
                f"A preset row of the method '{method.name}' is for method '{row.method}', "
                f"experiment '{row.experiment}', target '{row.target}': name this method, one of "
                f"the experiments {', '.join(EXPERIMENTS)} and one of its targets"
            )
        default = targets[0]
        if not any(
            (other.experiment, other.preset, other.target) == (row.experiment, row.preset, default)
            for other in method.presets
        ):
            raise ValueError(
                f"The method '{method.name}' has the preset '{row.preset}' of '{row.experiment}' "
                f"for the target '{row.target}' alone: add a row for '{default}', which other "
                "targets take"
            )
    METHODS[method.name] = method
    return method


def methods_of(experiment: str) -> list[str]:
    """Names of the methods that have presets for an experiment.

    Args:
        experiment: Name of the experiment.
    """
    return [
        name
        for name, method in METHODS.items()
        if any(row.experiment == experiment for row in method.presets)
    ]


def presets_of(experiment: str, method: str) -> list[str]:
    """Names of the presets that a method has for an experiment.

    Args:
        experiment: Name of the experiment.
        method: Name of the method.
    """
    rows = METHODS[method].presets
    return list(dict.fromkeys(row.preset for row in rows if row.experiment == experiment))


def methods_help() -> str:
    """The help of `--method`: all methods and what they are."""
    methods = "; ".join(f"{name}: {method.help}" for name, method in METHODS.items())
    return f"The method that makes the weights. {methods}."


def methods_with(flag: str) -> str:
    """The methods that have a flag, in the words of `--help`.

    Args:
        flag: One of `METHOD_FLAGS`.
    """
    names = [name for name, method in METHODS.items() if flag in method.flags]
    return f"For --method={', '.join(names)}"


def preset(
    experiment: str,
    method: str,
    preset: str,
    *,
    target: str | None = None,
    dataset: str | None = None,
    steps: int | None = None,
) -> RunConfig:
    """The configuration of a run, from the table of presets.

    Args:
        experiment: Name of the experiment.
        method: Name of the method.
        preset: Name of the preset, one of `presets_of`.
        target: Name of the target; None for the experiment's default. Without a row of its own it
            takes that of the target that it is like, or of the default.
        dataset: Name of the data set; None keeps the row's.
        steps: Number of training steps; None keeps the row's. A learning rate that falls to a
            fraction of itself falls over these steps, and snapshots are spread over them; it rises
            in the same part of the training.

    Raises:
        KeyError: There is no such row.
    """
    default = targets_of(experiment)[0]
    target = target or default
    rows = {
        row.target: row
        for row in METHODS[method].presets
        if (row.experiment, row.preset) == (experiment, preset)
    }
    row = rows[next((t for t in (target, TARGETS[target].like) if t in rows), default)]
    dataset = dataset or row.dataset
    row = dataclasses.replace(
        row,
        target=target,
        dataset=dataset,
        augment=hn.data.Selection.parse(dataset).option.augment != "",
    )
    return row.with_steps(steps or row.steps)


def build_sampler(config: RunConfig, num_data: int, classes: int = 10) -> hn.WeightSampler:
    """A compiled sampler for the configured target.

    Args:
        config: Configuration of the run.
        num_data: Number of training images.
        classes: Number of classes.

    Raises:
        ExtensionError: The sampler draws another number of networks in a step than is configured.
    """
    method = METHODS[config.method]
    target = build_target(config.target, classes, l2=config.l2)
    sampler = method.build(target, config, num_data)
    if sampler.num_networks != config.networks_per_step:  # costs and batches would be wrong
        raise ExtensionError(
            f"the method '{config.method}' has a sampler of {sampler.num_networks} networks in a "
            f"step, not the {config.networks_per_step} of its preset: build it with "
            "num_networks=config.networks_per_step"
        )
    rate = config.learning_rate / (num_data if method.learning_rate_of_mean_loss else 1)
    sampler.compile(
        optimizer=build_optimizer(config, rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return sampler


def build_optimizer(config: RunConfig, rate: float) -> keras.Optimizer:
    """The configured optimizer with its schedule.

    Args:
        config: Configuration of the training.
        rate: Learning rate of the first step, or after the warmup.
    """
    schedule = SCHEDULES[config.learning_rate_schedule](rate, config)
    if config.restart_every:
        schedule = keras.optimizers.schedules.CosineDecayRestarts(
            rate, config.restart_every, t_mul=1.0, alpha=1e-4
        )
    return OPTIMIZERS[config.optimizer](schedule, config)


# Rows of presets have several settings on a line.
# fmt: off

# ---- the hypernetwork -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DiversityOption:
    """What a hypernetwork's networks are to differ in.

    Attributes:
        name: Value of `--diversity`.
        help: What it is, in the words of `--help`.
        lam: Default of `--lam`; None for that of the preset.
        terms: Function () -> diversity terms of the sampler.
        title: What tables call it; "" for the words of `--help`.
    """

    name: str
    help: str
    lam: float | None
    terms: Callable[[], Sequence[hn.diversity.DiversityTerm]]
    title: str = ""

    @property
    def passes(self) -> int:
        """How often each network runs on a batch in a step.

        It runs a second time, all networks on the images of the first, for terms that compare
        outputs.
        """
        return 2 if any(term.uses_outputs for term in self.terms()) else 1


DIVERSITY: dict[str, DiversityOption] = {}


def register_diversity(option: DiversityOption) -> DiversityOption:
    """Make a diversity available to hypernetworks and mixtures in all commands.

    Args:
        option: What networks are to differ in.

    Raises:
        ValueError: Another one has its name.
    """
    if option.name in DIVERSITY:
        raise ValueError(
            f"Cannot register the diversity '{option.name}' twice: choose another name"
        )
    DIVERSITY[option.name] = option
    return option


def diversity_help() -> str:
    """The help of `--diversity`: all diversities and what they are."""
    options = "; ".join(f"{name}: {option.help}" for name, option in DIVERSITY.items())
    return f"For --method=hypernetwork and mixture: the diversity term. {options}."


# Entropy of the outputs costs accuracy directly, entropy of the weights only where the outputs
# change: at lam 1e3 LeNet's outputs grow until training diverges
# (docs/results/fashion_mnist.md).
register_diversity(
    DiversityOption(
        "weights",
        "the entropy of the weights, as in the paper's MNIST experiments",
        None,
        lambda: [hn.diversity.NegativeEntropy()],
        title="entropy of the weights",
    )
)
register_diversity(
    DiversityOption(
        "outputs",
        "the entropy of the outputs; --lam is 1e4 by default",
        1e4,
        lambda: [hn.diversity.NegativeOutputEntropy()],
        title="entropy of the outputs",
    )
)
register_diversity(
    DiversityOption(
        "none",
        "no diversity term; the networks may collapse to one",
        None,
        list,
        title="no entropy",
    )
)


def lam_of(config: RunConfig, diversity: str) -> float:
    """The default of `--lam`: that of a diversity with one of its own, or the preset's.

    Args:
        config: The preset.
        diversity: Name of what the networks are to differ in.
    """
    lam = DIVERSITY[diversity].lam
    return config.lam if lam is None else lam


def _hypernetwork(target: hn.Target, config: RunConfig, _: int) -> hn.Hypernetwork:
    """The hypernetwork that is published for the target, or the class's own defaults."""
    architectures = {"published": TARGETS[config.target].hypernetwork, "default": {}}
    return hn.Hypernetwork(
        target,
        num_networks=config.networks_per_step,
        lam=config.lam,
        seed=config.seed,
        diversity=DIVERSITY[config.diversity].terms(),
        **architectures[config.architecture],
    )


register_method(
    Method(
        name="hypernetwork",
        help="generated from a random vector",
        build=_hypernetwork,
        flags=("lam", "diversity", "networks_per_step", "l2"),
        presets=(
            RunConfig(
                "mnist", "hypernetwork", "paper", "mnist",
                steps=13_000, num_networks=200, networks_per_step=32, images_per_network=32,
                learning_rate=3e-4, learning_rate_decay=0.99998, lam=1e3,
            ),
            # Found by measurement (docs/results/recipes.md): better after 512,000 image passes
            # than the published settings after four times as many.
            RunConfig(
                "mnist", "hypernetwork", "fast", "mnist",
                steps=2_000, num_networks=200, networks_per_step=8, images_per_network=32,
                learning_rate=4e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                lam=1e3, architecture="default", validate_every=500,
            ),
            # "fast", with a small evaluation.
            RunConfig(
                "mnist", "hypernetwork", "quick", "mnist",
                steps=2_000, num_networks=50, networks_per_step=8, images_per_network=32,
                learning_rate=4e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                lam=1e3, architecture="default", validate_every=500,
            ),
            # At 1e-4 LeNet learns faster at first, and after 1,300 steps its loss may diverge.
            RunConfig(
                "cifar", "hypernetwork", "paper", "lenet", dataset="cifar10",
                steps=40_000, num_networks=10, networks_per_step=32, images_per_network=32,
                learning_rate=3e-5, learning_rate_decay=0.99998, lam=1e3,
            ),
            # "quick" is "fast" with the passes of the mixture's "quick": better than the settings
            # of "paper" at every number of passes that was tried (docs/results/cifar10.md).
            *(
                RunConfig(
                    "cifar", "hypernetwork", name, "lenet", dataset="cifar10",
                    steps=steps, num_networks=10, networks_per_step=8, images_per_network=32,
                    learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                    lam=1e3, architecture="default", validate_every=500,
                )
                for name, steps in (("fast", 2_000), ("quick", 12_000))
            ),
            # A step of ResNet-32 has the memory of 256 images. After 38,400 image passes the
            # constructor's sizes are ahead of the published ones, which learn nothing at 3e-4.
            RunConfig(
                "cifar", "hypernetwork", "paper", "resnet32", dataset="cifar10",
                steps=40_000, num_networks=10, networks_per_step=8, images_per_network=32,
                learning_rate=3e-5, learning_rate_decay=0.99998, lam=1e3,
            ),
            *(
                RunConfig(
                    "cifar", "hypernetwork", name, "resnet32", dataset="cifar10",
                    steps=steps, num_networks=10, networks_per_step=8, images_per_network=32,
                    learning_rate=1e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                    lam=1e3, architecture="default",
                )
                for name, steps in (("fast", 2_000), ("quick", 3_000))
            ),
        ),
    )
)


def _mixture(target: hn.Target, config: RunConfig, num_data: int) -> hn.Mixture:
    """Hypernetworks with initial weights of their own, each with its part of a step's networks."""
    count = config.hypernetworks
    if config.networks_per_step % count:
        raise ValueError(
            f"{count} hypernetworks cannot share {config.networks_per_step} networks of a step"
        )
    part = dataclasses.replace(config, networks_per_step=config.networks_per_step // count)
    return hn.Mixture([_hypernetwork(target, part, num_data) for _ in range(count)])


register_method(
    Method(
        name="mixture",
        help="hypernetworks trained side by side, whose networks are alike only within each one",
        build=_mixture,
        flags=("lam", "diversity", "hypernetworks", "l2"),
        presets=(
            RunConfig(
                "mnist", "mixture", "paper", "mnist",
                steps=13_000, num_networks=200, networks_per_step=32, images_per_network=32,
                learning_rate=4e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                lam=1e3, architecture="default",
            ),
            RunConfig(
                "mnist", "mixture", "fast", "mnist",
                steps=2_000, num_networks=200, networks_per_step=32, images_per_network=32,
                learning_rate=4e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                lam=1e3, architecture="default", validate_every=500,
            ),
            RunConfig(
                "mnist", "mixture", "quick", "mnist",
                steps=1_000, num_networks=48, networks_per_step=32, images_per_network=32,
                learning_rate=4e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                lam=1e3, architecture="default", validate_every=500,
            ),
            # As many passes as 32 networks on 32 images, of a quarter of the generated networks.
            RunConfig(
                "cifar", "mixture", "paper", "lenet", dataset="cifar10",
                steps=40_000, num_networks=12, networks_per_step=8, images_per_network=128,
                learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                lam=1e3, architecture="default",
            ),
            RunConfig(
                "cifar", "mixture", "quick", "lenet", dataset="cifar10",
                steps=3_000, num_networks=12, networks_per_step=32, images_per_network=32,
                learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
                lam=1e3, architecture="default",
            ),
        ),
    )
)


# ---- variational inference --------------------------------------------------------------------


def _mnf(target: hn.Target, config: RunConfig, num_data: int) -> hn.MNF:
    return hn.MNF(
        target, num_data=num_data, num_networks=config.networks_per_step, seed=config.seed
    )


register_method(
    Method(
        name="mnf",
        help="multiplicative normalizing flows, a variational posterior",
        build=_mnf,
        presets=(
            # 100 epochs of 550 batches of 100 images, a network for each, at a constant rate.
            RunConfig(
                "mnist", "mnf", "paper", "mnist",
                steps=55_000, num_networks=200, networks_per_step=1, images_per_network=100,
                learning_rate=1e-3, validate_every=5_500, checkpoint_every=1_000,
            ),
            RunConfig(
                "mnist", "mnf", "quick", "mnist",
                steps=6_000, num_networks=50, networks_per_step=1, images_per_network=100,
                learning_rate=1e-3, validate_every=2_000, checkpoint_every=500,
            ),
            RunConfig(
                "cifar", "mnf", "paper", "lenet", dataset="cifar10",
                steps=20_000, num_networks=10, networks_per_step=1, images_per_network=100,
                learning_rate=1e-3,
            ),
            RunConfig(
                "cifar", "mnf", "quick", "lenet", dataset="cifar10",
                steps=10_000, num_networks=10, networks_per_step=1, images_per_network=100,
                learning_rate=1e-3,
            ),
        ),
    )
)


def _bhn(target: hn.Target, config: RunConfig, num_data: int) -> hn.BHN:
    return hn.BHN(
        target, num_data=num_data, num_networks=config.networks_per_step, seed=config.seed
    )


register_method(
    Method(
        name="bhn",
        help="Bayesian hypernetwork, a flow that makes the norms of all filters",
        build=_bhn,
        presets=(
            # 100 epochs of batches of 128 images, a network for each.
            RunConfig(
                "mnist", "bhn", "paper", "mnist",
                steps=43_000, num_networks=200, networks_per_step=1, images_per_network=128,
                learning_rate=1e-3, validate_every=4_300, checkpoint_every=1_000,
            ),
            RunConfig(
                "mnist", "bhn", "quick", "mnist",
                steps=2_400, num_networks=50, networks_per_step=1, images_per_network=128,
                learning_rate=1e-3, validate_every=800, checkpoint_every=400,
            ),
            RunConfig(
                "cifar", "bhn", "paper", "lenet", dataset="cifar10",
                steps=20_000, num_networks=10, networks_per_step=1, images_per_network=100,
                learning_rate=1e-3,
            ),
            RunConfig(
                "cifar", "bhn", "quick", "lenet", dataset="cifar10",
                steps=10_000, num_networks=10, networks_per_step=1, images_per_network=100,
                learning_rate=1e-3,
            ),
        ),
    )
)


# ---- dropout ----------------------------------------------------------------------------------


def _dropout_rates(target: hn.Target) -> dict[str, float]:
    """0.5 for the inputs of a dense layer; 0.1 for few of them, for channels, and no pixels."""
    kernels = [layer for layer in target.layers if layer.slots[0].name == "kernel"]
    return {
        layer.name: 0.5 if len(layer.slots[0].shape) == 2 and layer.row_size > 64 else 0.1
        for layer in kernels[1:] or kernels
    }


def _mc_dropout(target: hn.Target, config: RunConfig, num_data: int) -> hn.MCDropout:
    return hn.MCDropout(
        target,
        num_data=num_data,
        rates=_dropout_rates(target),
        num_networks=config.networks_per_step,
        **_trained(config),
    )


register_method(
    Method(
        name="mc_dropout",
        help="one trained network, and dropout masks for each sampled network",
        build=_mc_dropout,
        presets=(
            RunConfig(
                "mnist", "mc_dropout", "paper", "mnist",
                steps=20_000, num_networks=200, networks_per_step=16, images_per_network=16,
                learning_rate=1e-3, learning_rate_decay=0.9999,
            ),
            RunConfig(
                "mnist", "mc_dropout", "quick", "mnist",
                steps=1_200, num_networks=50, networks_per_step=16, images_per_network=16,
                learning_rate=1e-3, learning_rate_decay=0.9999,
                validate_every=400, checkpoint_every=200,
            ),
            RunConfig(
                "cifar", "mc_dropout", "paper", "lenet", dataset="cifar10",
                steps=40_000, num_networks=10, networks_per_step=10, images_per_network=10,
                learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
            ),
            RunConfig(
                "cifar", "mc_dropout", "quick", "lenet", dataset="cifar10",
                steps=10_000, num_networks=10, networks_per_step=10, images_per_network=10,
                learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
            ),
        ),
    )
)


# ---- HyperGAN ---------------------------------------------------------------------------------


# Published: independent first weights, unscaled outputs. Few steps learn more from networks that
# start around a common draw. This l2 is of the generators' variables, `--l2` of the weights.
_HYPERGAN: dict[str, dict[str, Any]] = {
    "paper": {"initialization": "model", "scatter": 1.0, "l2": 5e-4},
    "quick": {},
}


# What HyperGAN goes without -> its arguments.
ABLATIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "discriminator": {"diversity": []},
    "mixer": {"codes": "independent"},
}


def _hypergan(target: hn.Target, config: RunConfig, _: int) -> hn.HyperGAN:
    """The HyperGAN of the later published program; lam is 1, and beta too."""
    return hn.HyperGAN(
        target,
        num_networks=config.networks_per_step,
        seed=config.seed,
        **TARGETS[config.target].hypergan,
        **_HYPERGAN[config.preset],
        **ABLATIONS[config.ablation],
    )


register_method(
    Method(
        name="hypergan",
        help="HyperGAN: a mixer, a generator for each layer, and a discriminator on their codes",
        build=_hypergan,
        shares_images=True,
        flags=("ablation", "l2"),
        presets=(
            # 10 epochs, until the first restart; the published number of epochs is not known.
            RunConfig(
                "mnist", "hypergan", "paper", "mnist",
                steps=5_500, num_networks=100, networks_per_step=100, images_per_network=100,
                learning_rate=1e-4, restart_every=5_500, validate_every=550,
            ),
            RunConfig(
                "mnist", "hypergan", "quick", "mnist",
                steps=600, num_networks=50, networks_per_step=32, images_per_network=32,
                learning_rate=1e-3, learning_rate_left=0.1,
                validate_every=200, checkpoint_every=100,
            ),
            # A step of 100 networks of LeNet has the memory of 10,000 images.
            RunConfig(
                "cifar", "hypergan", "paper", "lenet", dataset="cifar10",
                steps=4_500, num_networks=10, networks_per_step=100, images_per_network=100,
                learning_rate=1e-4, restart_every=4_500,
            ),
            RunConfig(
                "cifar", "hypergan", "quick", "lenet", dataset="cifar10",
                steps=3_000, num_networks=10, networks_per_step=32, images_per_network=32,
                learning_rate=1e-3, learning_rate_left=0.1,
            ),
        ),
    )
)


# ---- networks trained in the ordinary way -----------------------------------------------------


def _trained(config: RunConfig) -> dict[str, Any]:
    return {"initializers": TARGETS[config.target].initializers, "seed": config.seed}


def _deep_ensemble(target: hn.Target, config: RunConfig, _: int) -> hn.DeepEnsemble:
    return hn.DeepEnsemble(target, num_networks=config.networks_per_step, **_trained(config))


def _all_of_a_step(config: RunConfig) -> int:
    return config.networks_per_step


register_method(
    Method(
        name="deep_ensemble",
        help="10 networks trained side by side",
        build=_deep_ensemble,
        flags=("optimizer", "momentum", "l2"),
        num_available=_all_of_a_step,
        presets=(
            RunConfig(
                "mnist", "deep_ensemble", "paper", "mnist",
                steps=10_000, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=1e-3, learning_rate_decay=0.9999,
            ),
            RunConfig(
                "mnist", "deep_ensemble", "quick", "mnist",
                steps=600, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=1e-3, learning_rate_decay=0.9999,
                validate_every=200, checkpoint_every=100,
            ),
            RunConfig(
                "cifar", "deep_ensemble", "paper", "lenet", dataset="cifar10",
                steps=20_000, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
            ),
            # The best settings of these flags that we know (docs/results/cifar10.md).
            RunConfig(
                "cifar", "deep_ensemble", "paper", "lenet_normalized", dataset="cifar10",
                steps=28_670, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=0.02, learning_rate_left=0.0, learning_rate_schedule="cosine",
                warmup_steps=1_000, crop_margin=2, optimizer="sgd", momentum=0.9, l2=5e-4,
            ),
            RunConfig(
                "cifar", "deep_ensemble", "quick", "lenet", dataset="cifar10",
                steps=10_000, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
            ),
        ),
    )
)
register_method(
    Method(
        name="sgd",
        help="one network, trained in the ordinary way",
        build=_deep_ensemble,  # an ensemble of one
        flags=("optimizer", "momentum", "l2"),
        num_available=_all_of_a_step,
        presets=(
            # How long the single network was trained is not published: 10,000 steps, after which
            # its learning rate has fallen to 37 %, are our choice.
            RunConfig(
                "mnist", "sgd", "paper", "mnist",
                steps=10_000, num_networks=1, networks_per_step=1, images_per_network=256,
                learning_rate=1e-3, learning_rate_decay=0.9999,
            ),
            RunConfig(
                "mnist", "sgd", "quick", "mnist",
                steps=600, num_networks=1, networks_per_step=1, images_per_network=256,
                learning_rate=1e-3, learning_rate_decay=0.9999,
                validate_every=200, checkpoint_every=200,
            ),
            # Adam at this rate is best in short trainings: docs/results/cifar10.md.
            RunConfig(
                "cifar", "sgd", "paper", "lenet", dataset="cifar10",
                steps=20_000, num_networks=1, networks_per_step=1, images_per_network=100,
                learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
            ),
            # The best settings of these flags that we know (docs/results/cifar10.md).
            RunConfig(
                "cifar", "sgd", "paper", "lenet_normalized", dataset="cifar10",
                steps=75_000, num_networks=1, networks_per_step=1, images_per_network=128,
                learning_rate=0.02, learning_rate_left=0.0, learning_rate_schedule="cosine",
                warmup_steps=2_000, crop_margin=2, optimizer="sgd", momentum=0.9, l2=5e-4,
            ),
            RunConfig(
                "cifar", "sgd", "quick", "lenet", dataset="cifar10",
                steps=10_000, num_networks=1, networks_per_step=1, images_per_network=100,
                learning_rate=2e-3, learning_rate_left=0.01, learning_rate_schedule="cosine",
            ),
            # As He et al. (2016); without L2 it overfits (docs/results/cifar10.md).
            *(
                RunConfig(
                    "cifar", "sgd", name, "resnet32", dataset="cifar10",
                    steps=steps, num_networks=1, networks_per_step=1, images_per_network=128,
                    learning_rate=0.1, learning_rate_left=0.001, learning_rate_schedule="cosine",
                    optimizer="sgd", momentum=0.9, l2=1e-4,
                )
                for name, steps in (("paper", 64_000), ("quick", 5_000))
            ),
        ),
    )
)


# ---- chains of SGD ----------------------------------------------------------------------------

_LANGEVIN_SNAPSHOTS = 10  # of each chain


def _sgd_chains(target: hn.Target, config: RunConfig, _: int) -> hn.SGDChains:
    return hn.SGDChains(target, num_chains=config.networks_per_step, **_trained(config))


def _sgd_snapshots(target: hn.Target, config: RunConfig, _: int) -> hn.SGDChains:
    """One chain, whose last snapshots lie in the second half of the training."""
    return hn.SGDChains(
        target,
        num_chains=1,
        num_snapshots=config.num_networks,
        snapshot_every=config.steps_between_snapshots,
        **_trained(config),
    )


def _sgld(target: hn.Target, config: RunConfig, num_data: int) -> hn.SGLD:
    return hn.SGLD(
        target,
        lam=num_data,
        num_chains=config.networks_per_step,
        num_snapshots=_LANGEVIN_SNAPSHOTS,
        snapshot_every=config.steps_between_snapshots,
        **_trained(config),
    )


def _snapshots_taken(config: RunConfig, most: int) -> int:
    return min(most, max(1, config.steps // config.steps_between_snapshots))


register_method(
    Method(
        name="sgd_chains",
        help="10 independent chains of SGD at a constant rate",
        build=_sgd_chains,
        flags=("l2",),
        num_available=_all_of_a_step,
        presets=(
            RunConfig(
                "mnist", "sgd_chains", "paper", "mnist",
                steps=20_000, num_networks=10, networks_per_step=10, images_per_network=32,
                learning_rate=0.1, optimizer="sgd",
            ),
            RunConfig(
                "mnist", "sgd_chains", "quick", "mnist",
                steps=1_800, num_networks=10, networks_per_step=10, images_per_network=32,
                learning_rate=0.1, optimizer="sgd", validate_every=600, checkpoint_every=300,
            ),
            RunConfig(
                "cifar", "sgd_chains", "paper", "lenet", dataset="cifar10",
                steps=20_000, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=0.1, optimizer="sgd",
            ),
            RunConfig(
                "cifar", "sgd_chains", "quick", "lenet", dataset="cifar10",
                steps=10_000, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=0.1, optimizer="sgd",
            ),
        ),
    )
)
register_method(
    Method(
        name="sgd_snapshots",
        help="10 snapshots of one such chain",
        build=_sgd_snapshots,
        flags=("l2",),
        takes_snapshots=True,
        num_available=lambda config: _snapshots_taken(config, config.num_networks),
        presets=(
            RunConfig(
                "mnist", "sgd_snapshots", "paper", "mnist",
                steps=20_000, num_networks=10, networks_per_step=1, images_per_network=32,
                learning_rate=0.1, optimizer="sgd", snapshot_every=1_000,
            ),
            RunConfig(
                "mnist", "sgd_snapshots", "quick", "mnist",
                steps=1_800, num_networks=10, networks_per_step=1, images_per_network=32,
                learning_rate=0.1, optimizer="sgd", snapshot_every=100,
                validate_every=600, checkpoint_every=300,
            ),
            RunConfig(
                "cifar", "sgd_snapshots", "paper", "lenet", dataset="cifar10",
                steps=20_000, num_networks=10, networks_per_step=1, images_per_network=100,
                learning_rate=0.1, optimizer="sgd",
            ),
            RunConfig(
                "cifar", "sgd_snapshots", "quick", "lenet", dataset="cifar10",
                steps=10_000, num_networks=10, networks_per_step=1, images_per_network=100,
                learning_rate=0.1, optimizer="sgd",
            ),
        ),
    )
)
register_method(
    Method(
        name="sgld",
        help="10 chains of Langevin dynamics, 10 snapshots of each",
        build=_sgld,
        takes_snapshots=True,
        num_available=lambda config: (
            config.networks_per_step * _snapshots_taken(config, _LANGEVIN_SNAPSHOTS)
        ),
        learning_rate_of_mean_loss=True,
        presets=(
            RunConfig(
                "mnist", "sgld", "paper", "mnist",
                steps=20_000, num_networks=100, networks_per_step=10, images_per_network=32,
                learning_rate=0.1, optimizer="sgd", snapshot_every=100,
            ),
            RunConfig(
                "mnist", "sgld", "quick", "mnist",
                steps=1_800, num_networks=50, networks_per_step=10, images_per_network=32,
                learning_rate=0.1, optimizer="sgd", snapshot_every=100,
                validate_every=600, checkpoint_every=300,
            ),
            RunConfig(
                "cifar", "sgld", "paper", "lenet", dataset="cifar10",
                steps=20_000, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=0.1, optimizer="sgd",
            ),
            RunConfig(
                "cifar", "sgld", "quick", "lenet", dataset="cifar10",
                steps=10_000, num_networks=10, networks_per_step=10, images_per_network=100,
                learning_rate=0.1, optimizer="sgd",
            ),
        ),
    )
)


# ---- a generator that learns the networks of another run --------------------------------------


def _apd(target: hn.Target, config: RunConfig, _: int) -> hn.APD:
    return hn.APD(
        target,
        latent_dim=100,
        num_networks=config.networks_per_step,
        seed=config.seed,
    )


register_method(
    Method(
        name="apd",
        help="a generator that learns the networks of --match, such as a run of sgld",
        build=_apd,
        flags=("match",),
        matches="sgld",
        learns_match=True,
        presets=(
            # Images only show how good the generated networks are.
            RunConfig(
                "mnist", "apd", "paper", "mnist",
                steps=100_000, num_networks=200, networks_per_step=32, images_per_network=4,
                learning_rate=1e-4, validate_every=10_000, checkpoint_every=2_000,
            ),
            RunConfig(
                "mnist", "apd", "quick", "mnist",
                steps=3_000, num_networks=50, networks_per_step=32, images_per_network=4,
                learning_rate=1e-4, validate_every=1_000, checkpoint_every=500,
            ),
            RunConfig(
                "cifar", "apd", "paper", "lenet", dataset="cifar10",
                steps=100_000, num_networks=10, networks_per_step=32, images_per_network=4,
                learning_rate=1e-4, validate_every=10_000, checkpoint_every=2_000,
            ),
            RunConfig(
                "cifar", "apd", "quick", "lenet", dataset="cifar10",
                steps=3_000, num_networks=10, networks_per_step=32, images_per_network=4,
                learning_rate=1e-4, validate_every=1_000, checkpoint_every=500,
            ),
        ),
    )
)


# ---- the controls -----------------------------------------------------------------------------

_UNMATCHED = 1e-6  # next to no noise until the scale is matched: validations see the network itself


def _noise(target: hn.Target, config: RunConfig, _: int) -> hn.NoiseControl:
    return hn.NoiseControl(target, scale=_UNMATCHED, **_trained(config))


def _noise_by_layer(target: hn.Target, config: RunConfig, _: int) -> hn.NoiseControl:
    return hn.NoiseControl(
        target, scale=[_UNMATCHED] * len(target.layers), **_trained(config)
    )


_NETWORKS_WITH_NOISE = {
    ("mnist", "paper"): 200, ("mnist", "quick"): 50, ("cifar", "paper"): 10, ("cifar", "quick"): 10,
}

_NOISE = register_method(
    Method(
        name="noise",
        help="one trained network and noise around it, as far apart as the networks of --match",
        build=_noise,
        flags=("match", "optimizer", "momentum", "l2"),
        matches="hypernetwork",
        tuned_as="sgd",
        # The one network is trained as that of "sgd".
        presets=tuple(
            dataclasses.replace(row, method="noise", num_networks=_NETWORKS_WITH_NOISE[where])
            for row in METHODS["sgd"].presets
            for where in [(row.experiment, row.preset)]
        ),
    )
)
register_method(
    Method(
        name="noise_by_layer",
        help="the same, with noise that is as far apart in each layer as the networks of --match",
        build=_noise_by_layer,
        flags=("match", "optimizer", "momentum", "l2"),
        matches="hypernetwork",
        tuned_as="sgd",
        presets=tuple(dataclasses.replace(row, method="noise_by_layer") for row in _NOISE.presets),
    )
)
