"""The flag of commands that search in trials."""

from __future__ import annotations

from absl import flags

flags.DEFINE_integer(
    "trials",
    None,
    "How many trials a search has. A comparison: 8 for each method by default; 0 takes the presets "
    "as they are. A sweep with --search=bayesian: 10 in all by default.",
    lower_bound=0,
)
