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

from hypernet_tf.files import write_aside
from hypernet_tf.pretrained import _FOLDER
from hypernet_tf.training.checkpoints import CheckpointError, Checkpoints


def main() -> None:
    """Write both files, aside and then into place."""
    parser = argparse.ArgumentParser(prog="hypernet_tf.pretrained")
    parser.add_argument("run", type=pathlib.Path, help="folder of a finished run")
    parser.add_argument("name", help="name for load_pretrained")
    arguments = parser.parse_args()
    checkpoints = Checkpoints(arguments.run / "checkpoints")
    paths = [arguments.run / name for name in ("config.json", "metrics.json")]
    config, metrics = (json.loads(p.read_text()) if p.is_file() else {} for p in paths)
    steps = config.get("steps")
    if steps is None or not steps == metrics.get("steps") == checkpoints.latest_step():
        parser.error(f"the run in {arguments.run} is not finished: repeat its command first")
    try:
        trained, _ = checkpoints.load()
    except CheckpointError as error:
        parser.error(str(error))
    sampler = type(trained).from_config(trained.get_config())  # without an optimizer
    sampler.set_weights(trained.get_weights())
    path = _FOLDER / f"{arguments.name}.keras"
    write_aside(path, sampler.save)
    record = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "config": config}
    text = json.dumps(record, indent=2) + "\n"
    write_aside(path.with_suffix(".json"), lambda aside: aside.write_text(text))
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
