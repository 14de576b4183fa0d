"""A run as a command line, and as a process of its own."""

import dataclasses
import pathlib
import signal

import pytest
from small_experiments import command_line as parsed

from reproduce.cli.run_flags import config_from_flags
from reproduce.configs import METHODS, extensions
from reproduce.runs.command import command_line, end_together, run_child
from reproduce.runs.folder import RunError

ROWS = [row for method in METHODS.values() for row in method.presets]


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row.experiment}-{row.method}-{row.preset}-{row.target}"
)
def test_the_flags_describe_the_same_run(row, tmp_path):
    changes = {"dataset": "mnist_5k", "seed": 3, "precision": "mixed_bfloat16"}
    changes["jit_compile"] = True
    if "lam" in METHODS[row.method].flags:
        changes |= {"lam": 1 / 3, "diversity": "outputs"}
    if METHODS[row.method].matches:
        changes["match"] = "../other"
    step = {"networks_per_step": row.networks_per_step, "images_per_network": 24}
    if "networks_per_step" in METHODS[row.method].flags:
        step["networks_per_step"] = 5
    if "hypernetworks" in METHODS[row.method].flags:
        changes["hypernetworks"] = 6
        step["networks_per_step"] = 6 * (row.networks_per_step // 4)
    changes |= {"learning_rate": 0.1 / 3, "learning_rate_left": 0.02}
    changes |= {"learning_rate_schedule": "cosine", "restart_every": 0}
    config = dataclasses.replace(row.with_step_of(**step).with_steps(40), **changes)
    option, module, *words = command_line(
        config, tmp_path / "run", str(tmp_path), analyses=["paths"]
    )
    assert (option, module) == ("-m", f"reproduce.{row.experiment}")
    assert {f"--run_dir={tmp_path / 'run'}", f"--data_dir={tmp_path}", "--analyses=paths"} <= {
        *words
    }
    with parsed(*words):
        read_back = config_from_flags(row.experiment)
    if METHODS[row.method].matches:
        assert pathlib.Path(read_back.match).resolve() == tmp_path / "other"
        read_back = dataclasses.replace(read_back, match="../other")
    assert read_back == config


def test_a_warmup_is_kept_whatever_the_number_of_steps(tmp_path):
    row = next(row for row in ROWS if row.warmup_steps)
    for steps, warmup_steps in ((row.steps, 7), (2 * row.steps, row.warmup_steps), (40, 0)):
        config = dataclasses.replace(
            row, steps=steps, warmup_steps=warmup_steps, dataset="mnist_5k", augment=False
        )
        with parsed(*command_line(config, tmp_path / "run")[2:]):
            assert config_from_flags(row.experiment) == config


def test_it_holds_nothing_that_is_not_needed():
    config = next(row for row in ROWS if row.method == "sgd")
    config = dataclasses.replace(config, dataset="mnist_5k")
    assert command_line(config, pathlib.Path("runs/x")) == [
        *("-m", "reproduce.mnist", "--steps=10000", "--dataset=mnist_5k", "--method=sgd"),
        *("--seed=0", "--preset=paper", "--run_dir=runs/x"),
    ]


def test_a_child_loads_the_same_extensions(monkeypatch):
    monkeypatch.setattr(extensions, "_LOADED", ["my_sampler.py", "other"])
    assert "--extension=my_sampler.py,other" in command_line(ROWS[0], pathlib.Path("run"))


def test_a_child_that_fails_is_one_line(capfd):
    run_child(["-c", "print('done')"], "the run")
    with pytest.raises(RunError, match=r"^the run failed$"):
        run_child(["-c", "import sys; sys.exit('because')"], "the run")
    said = capfd.readouterr()
    assert said.out == "done\n"
    assert said.err == "because\n"


def test_a_child_that_is_killed_is_one_line():
    kill = "import os, signal; os.kill(os.getpid(), signal.{})"
    for name, words in (
        ("SIGKILL", "SIGKILL: there may be too little memory"),
        ("SIGTERM", "TERM"),
    ):
        with pytest.raises(RunError, match=f"^the run was ended by .*{words}: run the same"):
            run_child(["-c", kill.format(name)], "the run")


def test_at_ctrl_c_a_child_says_itself_what_is_kept(capfd):
    """The terminal sends SIGINT to both, this process here by the child."""
    script = "import os, signal; os.kill(os.getppid(), signal.SIGINT); print('kept')"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_child(["-c", script], "the run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().out == "kept\n"


def test_a_child_ends_with_this_process(tmp_path):
    """As SIGTERM of the parent: `end_together` turns it into an exit, which ends the child."""
    before = signal.getsignal(signal.SIGTERM)
    script = (
        "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60); "
        f"open({str(tmp_path / 'lived')!r}, 'w')"
    )
    try:
        end_together()
        with pytest.raises(SystemExit) as end:
            run_child(["-c", script], "the run")
        assert end.value.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "lived").exists()
