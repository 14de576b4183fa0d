"""The flag of commands that run several seeds."""

from __future__ import annotations

from absl import flags

flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds, one run each, separated by commas.")
flags.register_validator(
    "seeds",
    lambda values: (
        all(value.isdecimal() and int(value) < 2**31 for value in values)
        and len({int(value) for value in values}) == len(values) > 0
    ),
    "the seeds are different numbers between 0 and 2147483647, separated by commas",
)
