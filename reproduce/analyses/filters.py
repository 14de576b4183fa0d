"""Pictures of the same filter of each layer in several networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from hypernet_tf.analysis.filters import filter_pictures
from reproduce.analyses.base import Analysis, Findings
from reproduce.analyses.subject import Subject

SEED = 10_001
_MOST_NETWORKS = 25


class Filters(Analysis):
    """Visual inspection: the first filter of each layer, in 25 networks or fewer.

    Reference: Deutsch et al. (2019), section 4.1.
    """

    name = "filters"
    title = "pictures of the same filter in up to 25 networks"
    figure_caption = "The same filter in 25 networks, or in fewer if the sampler holds fewer"
    reading = (
        "Panels that differ show diversity that can be seen. Diversity in filters that the "
        "next layer ignores would be worth nothing: see the diversity of filters."
    )
    order = 30
    basic = True

    def compute(self, subject: Subject) -> Findings:
        """Collect the pictures; their number is a square number."""
        side = int(subject.sampler.at_most(_MOST_NETWORKS) ** 0.5)
        ensemble = subject.sampler.sample(side**2, seed=SEED)
        arrays, titles = {}, {}
        for title, pictures in filter_pictures(ensemble).items():
            layer = title.split(":")[0].replace(" ", "_")
            arrays[layer], titles[layer] = pictures, title
        return Findings({"num_networks": side**2, "pictures": titles}, {"filters": arrays})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a grid of pictures for each layer."""
        titles = numbers["pictures"]
        return plots.filter_grids({titles[layer]: grid for layer, grid in arrays.items()})
