"""One training of the search for the fast preset, and its results on one line.

Trains a hypernetwork, a mixture of several, or a deep ensemble for a number of image passes with
Adam and a cosine schedule, and prints accuracy, likelihood, calibration and disagreement on
validation and test images, and how well mutual information detects other images.

    python -m benchmarks.recipe --rate 4e-3
    python -m benchmarks.recipe --rate 2e-3 --initialization model --latent_dim 300
    python -m benchmarks.recipe --rate 4e-3 --hypernetworks 4 --passes 2048000
    python -m benchmarks.recipe --rate 2e-3 --networks 10 --deep_ensemble --passes 2048000
"""

import argparse
import time

import keras
import tensorflow as tf

import hypernet_tf as hn
from reproduce.configs.methods import DIVERSITY

NUM_OOD_IMAGES = 2_000  # of each data set


def parse() -> argparse.Namespace:
    """The settings of a training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data_dir")
    parser.add_argument("--passes", type=int, default=512_000)
    parser.add_argument("--networks", type=int, default=8, help="N of each hypernetwork")
    parser.add_argument("--late_networks", type=int, help="N in the second half of the passes")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--hypernetworks", type=int, default=1)
    parser.add_argument("--deep_ensemble", action="store_true")
    parser.add_argument("--initialization", default="scaled")
    parser.add_argument("--latent_dim", type=int, default=64)
    parser.add_argument("--code_dim", type=int, default=15)
    parser.add_argument("--hidden", type=int, default=100, help="units of the generators")
    parser.add_argument("--lam", type=float, default=1e3)
    parser.add_argument("--lam_end", type=float, help="lam after the last step")
    parser.add_argument("--ema", type=float, help="momentum of the average of the parameters")
    parser.add_argument("--diversity", choices=list(DIVERSITY), default="weights")
    parser.add_argument("--sampled", type=int, default=100, help="networks of the ensemble")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build(given: argparse.Namespace) -> hn.WeightSampler:
    """The sampler, not compiled, with N networks in a step of each hypernetwork."""
    target = hn.Target(hn.zoo.mnist(), outputs="logits")
    if given.deep_ensemble:
        return hn.DeepEnsemble(target, num_networks=given.networks, seed=given.seed)
    steps = num_steps(given)
    parts = [
        hn.Hypernetwork(
            target,
            num_networks=given.networks,
            lam=given.lam,
            lam_growth=((given.lam_end or given.lam) / given.lam) ** (1 / steps),
            code_dim=given.code_dim,
            generator_hidden=(given.hidden, given.hidden),
            latent_dim=given.latent_dim,
            initialization=given.initialization,
            diversity=DIVERSITY[given.diversity].terms(),
            seed=given.seed,
        )
        for _ in range(given.hypernetworks)
    ]
    return parts[0] if len(parts) == 1 else hn.Mixture(parts)


def num_steps(given: argparse.Namespace) -> int:
    """The number of steps that the passes take."""
    parts = 1 if given.deep_ensemble else given.hypernetworks
    return round(given.passes / (parts * given.networks * given.images))


def train(given: argparse.Namespace, data: hn.data.Dataset) -> hn.WeightSampler:
    """A sampler after its passes: all at once, or in two halves with different numbers of networks.

    The second half continues parameters and state of the optimizer, and the fall of the rate.
    """
    phases = [given]
    if given.late_networks:
        late = {**vars(given), "networks": given.late_networks}
        phases.append(argparse.Namespace(**late))
    before, done = None, 0.0
    for phase in phases:
        sampler = build(phase)
        share = 1 / len(phases)
        whole = num_steps(phase)  # if all passes were like these
        schedule = keras.optimizers.schedules.CosineDecay(phase.rate, whole, alpha=0.01)
        average = {"use_ema": True, "ema_momentum": phase.ema} if phase.ema else {}
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        sampler.compile(keras.optimizers.Adam(schedule, epsilon=1e-8, **average), loss)
        if before is not None:
            sampler.set_weights(before.get_weights())
            for variable, value in zip(
                sampler.optimizer.variables, before.optimizer.variables, strict=True
            ):
                variable.assign(value)
            sampler.optimizer.iterations.assign(round(done * whole))
        examples = tf.data.Dataset.from_tensor_slices((data.train.x, data.train.y))
        examples = examples.shuffle(len(data.train), seed=phase.seed).repeat()
        examples = examples.batch(sampler.num_networks * phase.images).prefetch(2)
        sampler.fit(examples, steps_per_epoch=round(share * whole), shuffle=False, verbose=2)
        before, done = sampler, done + share
    return sampler


def main() -> None:
    """Train, evaluate, print."""
    given = parse()
    keras.utils.set_random_seed(given.seed)
    data = hn.data.load(given.dataset, given.data_dir)
    start = time.perf_counter()
    sampler = train(given, data)
    print(f"{given}\n{given.passes} image passes in {time.perf_counter() - start:.0f} s")
    ensemble = sampler.sample(sampler.num_available or given.sampled, seed=2)
    for name, split in (("validation", data.validation), ("test", data.test)):
        result = ensemble.evaluate(split.x, split.y)
        members = 100 * result.member_accuracy
        print(
            f"{name}: members {members.mean():.2f} ± {members.std():.2f} (lowest "
            f"{members.min():.1f}), vote {100 * result.majority_vote_accuracy:.2f}, NLL "
            f"{result.negative_log_likelihood:.4f}, ECE {result.expected_calibration_error:.4f}, "
            f"disagreement {result.disagreement:.4f}"
        )
    other = "fashion_mnist" if given.dataset.startswith("mnist") else "mnist"
    noise = hn.data.uniform_noise(NUM_OOD_IMAGES, data.test.x.shape[1:])
    others = {other: hn.data.load(other, given.data_dir), "glyphs": hn.data.load("glyphs")}
    inside = ensemble.uncertainty(data.test.x[:NUM_OOD_IMAGES]).mutual_information
    for name, outside in (others | {"noise": noise}).items():
        scores = ensemble.uncertainty(outside.test.x[:NUM_OOD_IMAGES]).mutual_information
        auroc = hn.ood_metrics(inside, scores).auroc
        print(f"{name}: area under ROC by mutual information {100 * auroc:.2f} %")


if __name__ == "__main__":
    main()
