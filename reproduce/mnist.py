"""The MNIST experiments: train a sampler of networks with 20,018 weights, evaluate, analyse them.

Trains the hypernetwork of Deutsch, Nijkamp, Yang (2019), or another sampler of weights, evaluates
an ensemble of its networks on the test images and writes a run folder with figures (and the numbers
behind each), metrics.json and report.html.

  python -m reproduce.mnist --lam=1e3                          the paper's settings, 13,000 steps
  python -m reproduce.mnist --lam=1e3 --analyses=all           the same with all its figures
  python -m reproduce.mnist --preset=fast                      good networks after 1.5 minutes
  python -m reproduce.mnist --preset=quick                     the same, with a smaller evaluation
  python -m reproduce.mnist --dataset=fashion_mnist --steps=4000
  python -m reproduce.mnist --method=mnf                       another sampler
  python -m reproduce.mnist --method=noise --match=runs/mnist  noise as far apart as that run
  python -m reproduce.mnist --run_dir=runs/mnist --analyses=paths,adversarial
                                                               a finished run: without training

The same command again continues where the run stopped; a higher --steps continues a finished one,
unless its learning rate falls over its steps, as in the presets fast and quick.
`python -m reproduce.report RUN...` shows runs side by side, `python -m reproduce.compare` trains
several methods at the same cost. TensorBoard shows them: tensorboard --logdir runs
"""

from __future__ import annotations

from absl import flags

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

from reproduce.cli import run_flags

for _module in (run_flags, *run_flags.FLAG_MODULES):
    flags.adopt_module_key_flags(_module)


def main() -> None:
    """Run `python -m reproduce.mnist`."""
    run_flags.main("mnist")


if __name__ == "__main__":
    command.run(main)
