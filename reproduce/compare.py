"""Methods side by side: same target, same images, same cost of training, one table.

  python -m reproduce.compare --dataset=mnist_5k --preset=quick
  python -m reproduce.compare --dataset=fashion_mnist --methods=hypernetwork,noise,sgd

Each method and seed is a run of `reproduce.mnist` of its own, in a folder below the comparison's,
and is analysed like any other. What is finished is not run again when a comparison is repeated, or
widened by methods and seeds; one that was killed goes on where it stopped. A run of all methods
with the preset `quick` takes about 20 minutes for each seed on two cores.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

from absl import flags

import hypernet_tf as hn
from reproduce import mnist
from reproduce.analyses import Limits
from reproduce.analyses import perform as _perform
from reproduce.cli import analysis_flags as _analysis_flags
from reproduce.cli import device_flags as _device_flags
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.cli import seeds_flag as _seeds_flag
from reproduce.configs.methods import METHODS, build
from reproduce.runs import child as _child
from reproduce.runs import folder as _run
from reproduce.studies import comparison as _comparison

# Of the shared flags only these mean something here.
SHARED_FLAGS = ("dataset", "data_dir", "run_dir", "preset")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.adopt_module_key_flags(_seeds_flag)
flags.DEFINE_list("methods", list(METHODS), f"Some of {', '.join(METHODS)}.")
flags.DEFINE_integer(
    "passes",
    None,
    "The cost of a training: how many images go through one target network, forth and back. "
    "Default: those of the hypernetwork's published run, 13,312,000; of --preset=quick 1,024,000.",
    lower_bound=1,
)

PASSES = {"paper": 13_312_000, "quick": 1_024_000}
ANALYSED = ("uncertainty", "out_of_distribution")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared: data set, preset, image passes of a training, methods, seeds."""

    dataset: str
    preset: str
    passes: int
    methods: tuple[str, ...]
    seeds: tuple[int, ...]


def from_flags() -> Comparison:
    """The comparison that the flags ask for; says on stdout which data set `auto` became.

    Raises:
        UsageError: an unknown method, one named twice, or noise without what it matches.
    """
    values = _flags.FLAGS
    _flags.accept_only(
        SHARED_FLAGS, "a comparison", others=(_experiment_flags, _device_flags, _analysis_flags)
    )
    methods = values.methods
    for name in methods:
        if name not in METHODS:
            raise _run.UsageError(f"there is no method '{name}': there are {', '.join(METHODS)}")
    if not methods or len(set(methods)) < len(methods):
        raise _run.UsageError("--methods names at least one, and each once")
    if "noise" in methods and "hypernetwork" not in methods:
        raise _run.UsageError("noise is as far apart as the hypernetwork: add it to --methods")
    return Comparison(
        _flags.dataset(hn.data.NAMES),
        values.preset,
        values.passes or PASSES[values.preset],
        tuple(name for name in METHODS if name in methods),
        tuple(sorted(map(int, values.seeds))),
    )


def default_folder(comparison: Comparison) -> pathlib.Path:
    """Named after data set and preset; more passes, methods or seeds go on in the same folder."""
    parts = {"dataset": (comparison.dataset, "mnist"), "preset": (comparison.preset, "paper")}
    named = [f"{name}={value}" for name, (value, usual) in parts.items() if value != usual]
    return pathlib.Path("runs", "-".join(["compare", *named]))


def config_of(comparison: Comparison, method: str, seed: int) -> mnist.Config:
    """The run of one method and seed: as many whole steps as it takes for the passes."""
    config = mnist.defaults(method, comparison.preset)
    other = run_folder(pathlib.Path(".."), "hypernetwork", seed) if method == "noise" else ""
    return dataclasses.replace(
        config,
        dataset=comparison.dataset,
        seed=seed,
        steps=-(-comparison.passes // config.passes_per_step),
        match=str(other),
    )


def run_folder(folder: pathlib.Path, method: str, seed: int) -> pathlib.Path:
    """The folder of one run."""
    return folder / f"{method}-seed={seed}"


def run(comparison: Comparison, folder: pathlib.Path, data_dir: str | None = None) -> dict:
    """Train and analyse what is not there yet, then write table, figure and page.

    Args:
        comparison: what to compare.
        folder: of the comparison, and of its runs.
        data_dir: see `hypernet_tf.data.load`.

    Returns:
        What metrics.json holds.

    Raises:
        RunError: a folder holds another run, or a run failed.
    """
    _run.check_several(folder, "compare", lambda name: "-seed=" in name)
    runs = [
        (method, config_of(comparison, method, seed))
        for seed in comparison.seeds
        for method in comparison.methods
    ]
    for method, config in runs:  # what stands in the way is said before anything is trained
        _run.check(run_folder(folder, method, config.seed), config)
        size = build(config, num_data=1).num_available_after(config.steps)
        if size is not None and size < config.num_networks:
            raise _run.UsageError(
                f"after {comparison.passes:,} image passes {method} has {size} networks, and its "
                f"ensemble takes {config.num_networks}: raise --passes"
            )
    with _run.locked(folder):
        return _run_all(comparison, runs, folder, data_dir)


def _run_all(
    comparison: Comparison,
    runs: list[tuple[str, mnist.Config]],
    folder: pathlib.Path,
    data_dir: str | None,
) -> dict:
    found: dict[str, list[dict]] = {method: [] for method in comparison.methods}
    for place, (method, config) in enumerate(runs, 1):
        where = run_folder(folder, method, config.seed)
        complete = _complete(where, config)
        state = "is complete" if complete else f"{config.steps:,} steps"
        print(f"run {place} of {len(runs)}: {method}, seed {config.seed}: {state}", flush=True)
        if not complete:
            _train(config, where, data_dir)
        found[method].append(_run.read_metrics(where))
    try:
        rows = _comparison.table(found)
    except (KeyError, TypeError) as error:
        raise _run.RunError(f"metrics.json of a run in {folder} is damaged: {error}") from error
    metrics = {"experiment": "compare", **dataclasses.asdict(comparison), "rows": rows}
    figure, arrays = _comparison.figure(rows)
    _run.write_figure(folder, "comparison", figure, arrays)
    _run.write_json(folder / "metrics.json", metrics)
    _run.write(folder / "table.md", lambda aside: aside.write_text(_comparison.text_table(rows)))
    configs = {method: several[0]["config"] for method, several in found.items()}
    others = _others(folder, comparison)
    if others:
        print(f"not in this table: {', '.join(others)}, which {folder} holds too")
    text = _comparison.page(
        metrics, folder / "figures" / "comparison.png", json.dumps(configs, indent=2)
    )
    _run.write(folder / "report.html", lambda aside: aside.write_text(text))
    return metrics


def _others(folder: pathlib.Path, comparison: Comparison) -> list[str]:
    """Runs in the folder that a comparison leaves out."""
    asked = {
        run_folder(folder, method, seed).name
        for method in comparison.methods
        for seed in comparison.seeds
    }
    return sorted({path.name for path in folder.glob("*-seed=*")} - asked)


def _complete(folder: pathlib.Path, config: mnist.Config) -> bool:
    """Whether a run is finished and analysed, with the settings that every run here has."""
    if _run.check(folder, config) != config.steps or not (folder / "report.html").exists():
        return False
    limits = Limits(config.num_networks, None, 1, 1, config.dataset)
    settings = _perform.resolved_settings(ANALYSED, {}, limits)
    metrics = _run.read_metrics(folder)
    return all(_perform.is_done(name, metrics, settings) for name in ANALYSED)


def _train(config: mnist.Config, folder: pathlib.Path, data_dir: str | None) -> None:
    """One run in a process of its own, whose peak memory is then its own as well.

    Raises:
        RunError: it failed; what it said of it stands above.
    """
    wanted = {
        "dataset": config.dataset,
        "method": config.method,
        "preset": config.preset,
        "seed": config.seed,
        "steps": config.steps,
        "run_dir": folder,
        "analyses": ",".join(ANALYSED),
        "match": config.match and folder / config.match,
        "data_dir": data_dir,
    }
    what = f"{config.method} with seed {config.seed}"
    _child.run("reproduce.mnist", wanted, what)


def main() -> None:
    """What `python -m reproduce.compare` does."""
    _child.end_together()
    comparison = from_flags()
    values = _flags.FLAGS
    folder = pathlib.Path(values.run_dir) if values.run_dir else default_folder(comparison)
    metrics = run(comparison, folder, values.data_dir)
    print(_comparison.text_table(metrics["rows"]))
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    _flags.run(main)
