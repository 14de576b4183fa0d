"""The configuration of a run, and the preset rows that hold it."""

import dataclasses
import json
import pathlib
import re

import pytest
from small_experiments import TINY

import reproduce
from reproduce.configs import METHODS, RunConfig
from reproduce.configs.run_config import FLAG_FIELDS
from reproduce.runs import folder as folders

ROWS = [row for method in METHODS.values() for row in method.presets]


def row_name(row):
    return f"{row.experiment}-{row.method}-{row.preset}-{row.target}"


def test_every_field_is_read():
    package = pathlib.Path(reproduce.__file__).parent
    sources = {path.relative_to(package): path.read_text() for path in package.rglob("*.py")}
    properties = sources.pop(pathlib.Path("configs", "run_config.py"))
    others = "".join(sources.values())
    for field in dataclasses.fields(RunConfig):
        read = re.search(rf"\b(config|row)\.{field.name}\b", others)
        assert read or re.search(rf"\bself\.{field.name}\b", properties), field.name


def test_every_field_is_a_flag_or_of_the_preset_alone():
    alone = {
        *("experiment", "learning_rate_decay", "restart_every"),
        *("validate_every", "checkpoint_every", "snapshot_every", "augment", "architecture"),
    }
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    assert fields == alone | {"steps", *FLAG_FIELDS}


def test_fields_are_json_values_of_a_stated_type():
    assert {field.type for field in dataclasses.fields(RunConfig)} == {
        "str",
        "int",
        "float",
        "bool",
    }


@pytest.mark.parametrize("row", ROWS, ids=row_name)
def test_a_row_is_read_back_from_its_file(row, tmp_path):
    folders.write_json(tmp_path / "config.json", dataclasses.asdict(row))
    assert RunConfig(**json.loads((tmp_path / "config.json").read_text())) == row
    assert folders.check(tmp_path, row) == 0  # every value has the type of its field


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.steps = 3


def test_image_passes_of_a_step():
    assert TINY.passes_per_step == TINY.images_per_step == 3 * 4
    outputs = dataclasses.replace(TINY, diversity="outputs")
    assert (outputs.passes_per_step, outputs.images_per_step) == (2 * 3 * 4, 3 * 4)
    larger = outputs.with_step_of(networks_per_step=3, images_per_network=8)
    assert larger.validate_every == outputs.validate_every // 2
    rising = dataclasses.replace(outputs, warmup_steps=10)
    assert rising.with_step_of(networks_per_step=3, images_per_network=8).warmup_steps == 5


def test_the_learning_rate_falls_by_a_factor_or_to_a_fraction():
    assert dataclasses.replace(TINY, learning_rate_decay=0.5).decay_per_step == 0.5
    to_a_hundredth = dataclasses.replace(TINY, learning_rate_left=0.01, steps=400)
    assert to_a_hundredth.decay_per_step**400 == pytest.approx(0.01)


def test_a_run_whose_rate_follows_its_steps_is_not_continued_with_more(tmp_path):
    cases = (
        (TINY, True),
        (dataclasses.replace(TINY, learning_rate_left=0.01), False),
        (dataclasses.replace(TINY, learning_rate_schedule="cosine"), False),  # to 0
        (dataclasses.replace(TINY, learning_rate_schedule="cosine", restart_every=2), True),
        (dataclasses.replace(TINY, method="sgd_snapshots", snapshot_every=1), True),
        (dataclasses.replace(TINY, method="sgd_snapshots"), False),
    )
    for number, (row, fits) in enumerate(cases):
        folder = tmp_path / str(number)
        (folder / "checkpoints").mkdir(parents=True)  # something has been trained
        folders.write_json(folder / "config.json", dataclasses.asdict(row))
        assert row.follows_steps is not fits
        more = dataclasses.replace(row, steps=row.steps + 1)
        if fits:
            folders.check(folder, more)
            continue
        with pytest.raises(folders.RunError, match=f"over {row.steps} steps, not {more.steps}: "):
            folders.check(folder, more)


@pytest.mark.parametrize(
    ("steps", "snapshot_every", "expected"), [(400, 0, 20), (400, 7, 7), (19, 0, 1)]
)
def test_steps_between_snapshots(steps, snapshot_every, expected):
    config = dataclasses.replace(TINY, steps=steps, snapshot_every=snapshot_every)
    assert config.steps_between_snapshots == expected
