"""LeNet and ResNet-32 on small colour images: train a sampler of their weights, and evaluate it.

Trains the hypernetwork of Deutsch, Nijkamp, Yang (2019) for LeNet (62,006 weights) or ResNet-32
(465,290), or another sampler of weights, and writes a run folder as `reproduce.mnist` does.

  python -m reproduce.cifar --dataset=cifar10 --target=lenet --lam=1e3
  python -m reproduce.cifar --dataset=cifar100 --target=resnet32 --diversity=none
  python -m reproduce.cifar --dataset=fashion_mnist            grey images, padded to 32 x 32 x 3
  python -m reproduce.cifar --dataset=mnist_5k --preset=quick  minutes on two cores
  python -m reproduce.cifar --method=sgd_chains --target=resnet32

A rate that falls over the run's steps ends with them: such a run cannot be continued with more.
Without an internet connection, `--data_dir` may hold the original archive of the data set. Every
column of the paper's Table 1 in one command: `python -m reproduce.table1`.
"""

from __future__ import annotations

from absl import flags

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

from reproduce.cli import run_flags

for _module in (run_flags, *run_flags.FLAG_MODULES):
    flags.adopt_module_key_flags(_module)


def main() -> None:
    """Run `python -m reproduce.cifar`."""
    run_flags.main("cifar")


if __name__ == "__main__":
    run_flags.use_data_of("cifar")
    command.run(main)
