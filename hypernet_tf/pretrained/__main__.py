"""Makes the files of this folder from a finished run.

  python -m reproduce.mnist --preset=fast --dataset=mnist --run_dir=runs/fast
  python -m hypernet_tf.pretrained runs/fast mnist

Writes mnist.keras, the sampler of the newest checkpoint without its optimizer, and mnist.json, with
its digest and the configuration of the run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib

from hypernet_tf.pretrained import _FOLDER
from hypernet_tf.training.checkpoints import Checkpoints


def main() -> None:
    """Write both files, aside and then into place."""
    parser = argparse.ArgumentParser(prog="hypernet_tf.pretrained")
    parser.add_argument("run", type=pathlib.Path, help="folder of a finished run")
    parser.add_argument("name", help="name for load_pretrained")
    arguments = parser.parse_args()
    trained, _ = Checkpoints(arguments.run / "checkpoints").load()
    sampler = type(trained).from_config(trained.get_config())  # without an optimizer
    sampler.set_weights(trained.get_weights())
    aside = _FOLDER / f".{arguments.name}.keras"
    sampler.save(aside)
    record = {
        "sha256": hashlib.sha256(aside.read_bytes()).hexdigest(),
        "config": json.loads((arguments.run / "config.json").read_text()),
    }
    path = _FOLDER / f"{arguments.name}.keras"
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    aside.replace(path)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
