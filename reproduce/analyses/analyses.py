"""The analyses of the MNIST experiments: sampler in, numbers and figures out, whoever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.analysis.attacks import NothingToAttackError, adversarial_success
from hypernet_tf.analysis.filters import filter_diversity, filter_pictures
from hypernet_tf.analysis.paths import direct_path, interpolated_path
from hypernet_tf.analysis.pca import principal_components, weight_views
from hypernet_tf.samplers.latent import LatentSampler
from reproduce.analyses.subject import Drawing, Result, Subject
from reproduce.analyses.uncertainty import out_of_distribution, uncertainty

# Seeds of `sampler.sample`: ensembles take 1, 2, ...; attacks take theirs from the last one on.
_FILTERS, _SCATTER, _PATHS, _FILTER_DIVERSITY, _ADVERSARIAL = (
    10_001,
    10_002,
    10_003,
    10_004,
    100_000,
)

_COLOUR_IMAGES = 1_000


def accuracies(subject: Subject) -> Result:
    """Histogram of the networks' accuracies, of all ensembles together."""
    results = subject.evaluations()
    networks = np.concatenate([result.member_accuracy for result in results])
    marks = {
        "mean of the networks": networks.mean(),
        "majority vote": np.mean([r.majority_vote_accuracy for r in results]),
        "mean probability": np.mean([r.mean_probability_accuracy for r in results]),
        "most confident": np.mean([r.most_confident_accuracy for r in results]),
    }
    percent = {name: 100 * float(value) for name, value in marks.items()}
    # 0.05 points as published, or one image where that is more: the least difference there is.
    width = max(0.05, 100 / len(subject.test))
    figure = plots.accuracy_histogram(100 * networks, percent, bin_width=width)
    metrics = _spread(networks) | {
        "networks": len(networks),
        "lowest": float(networks.min()),
        "highest": float(networks.max()),
        "bin_width_points": width,
    }
    arrays = {name.replace(" ", "_"): np.array(value) for name, value in percent.items()}
    arrays |= {"accuracies": networks, "bin_width": np.array(width)}
    return Result(metrics, {"accuracy_histogram": Drawing(figure, arrays)})


def ensembles(subject: Subject) -> Result:
    """Accuracies of several ensembles beside those of their networks."""
    results = subject.evaluations()
    found = {
        "majority_vote": np.array([r.majority_vote_accuracy for r in results]),
        "mean_probability": np.array([r.mean_probability_accuracy for r in results]),
        "most_confident": np.array([r.most_confident_accuracy for r in results]),
    }
    members = np.stack([result.member_accuracy for result in results])
    metrics: dict[str, Any] = {"ensembles": len(results), "networks_each": members.shape[1]}
    metrics["member"] = _spread(members.ravel())
    metrics |= {name: _spread(values) for name, values in found.items()}
    figure = plots.ensembles(
        100 * members.mean(1), {k.replace("_", " "): 100 * v for k, v in found.items()}
    )
    return Result(metrics, {"ensembles": Drawing(figure, found | {"members": members})})


def filters(subject: Subject) -> Result:
    """The same filter of each layer in 25 networks, to be looked at."""
    most = subject.sampler.num_available or 25
    count = int(min(25, most) ** 0.5) ** 2
    ensemble = subject.sampler.sample(count, seed=_FILTERS)
    grids = filter_pictures(ensemble)
    arrays = {name.split(":")[0].replace(" ", "_"): grid for name, grid in grids.items()}
    return Result({"networks": count}, {"filters": Drawing(plots.filter_grids(grids), arrays)})


def scatter(subject: Subject) -> Result:
    """Scatter matrices of the principal components of the networks' weights."""
    settings = subject.settings
    ensemble = subject.sampler.sample(settings.scatter_networks, seed=_SCATTER)
    values = None
    if settings.colour:
        test = subject.test
        shown = slice(0, _COLOUR_IMAGES)
        result = ensemble.evaluate(test.x[shown], test.y[shown], verbose=1)
        assert isinstance(result, hn.Evaluation)
        values = 100 * result.member_accuracy
    metrics: dict[str, Any] = {"networks": len(ensemble), "views": {}}
    drawings = {}
    images = min(_COLOUR_IMAGES, len(subject.test))
    label = f"accuracy on the first {images:,} test images (%)"
    for name, vectors in tqdm(weight_views(ensemble).items(), "scatter", leave=False):
        found = principal_components(vectors)
        metrics["views"][name] = {
            "weights": vectors.shape[1],
            "explained": found.explained.tolist(),
            "explained_if_independent": found.explained_if_independent.tolist(),
        }
        title = f"{name}: {len(ensemble):,} networks, principal components"
        figure = plots.scatter_matrix(
            found.coordinates, found.explained, title, values=values, label=label
        )
        arrays = found._asdict() | ({} if values is None else {"accuracy_percent": values})
        drawings[f"scatter_{_file_name(name)}"] = Drawing(figure, arrays)
    return Result(metrics, drawings)


def paths(subject: Subject) -> Result:
    """Accuracy along direct paths between networks, and along those in the latent space."""
    sampler, settings, test = subject.sampler, subject.settings, subject.test
    pairs, points, images = settings.pairs, settings.points, settings.path_images
    ensemble = sampler.sample(2 * pairs, seed=_PATHS)
    lines = {"direct": direct_path(ensemble[:pairs], ensemble[pairs:], points)}
    if isinstance(sampler, LatentSampler):
        z = sampler.sample_latent(2 * pairs, seed=_PATHS)
        lines["interpolated"] = interpolated_path(
            sampler.target, sampler.weights_of, z[:pairs], z[pairs:], points
        )
    found, metrics = {}, {}
    for name, line in lines.items():
        if sampler.batch_norm_data is not None:
            line = line.update_batch_norm(sampler.batch_norm_data)
        result = line.evaluate(test.x[:images], test.y[:images], verbose=1)
        assert isinstance(result, hn.Evaluation)
        found[name] = along = result.member_accuracy.reshape(pairs, points)
        metrics[name] = {
            "ends": float(along[:, [0, -1]].mean()),
            "lowest_of_each_path": float(along.min(1).mean()),
            "mean_along": float(along.mean()),
            "dip": float((along[:, [0, -1]].mean(1) - along.min(1)).mean()),
        }
    t = np.linspace(0, 1, points)
    figure = plots.paths(t, {name: 100 * along for name, along in found.items()})
    return Result(
        {"pairs": pairs, "points": points, "images": images} | metrics,
        {"paths": Drawing(figure, found | {"t": t})},
    )


def adversarial(subject: Subject) -> Result:
    """Success of the fast gradient method against one network and against ensembles."""
    sampler, settings, test = subject.sampler, subject.settings, subject.test
    images = settings.adversarial_images
    try:
        found = adversarial_success(
            lambda count, seed: sampler.sample(count, seed=seed),
            test.x[:images],
            np.asarray(test.y[:images], np.int64),
            num_networks=settings.adversarial_networks,
            clip=(0.0, 1.0) if settings.clip else None,
            batch_size=min(32, sampler.num_available or 32),
            seed=_ADVERSARIAL,
            verbose=1,
        )
    except NothingToAttackError as error:
        print(f"no attacks: {error}")
        return Result({"images": images, "attacked": 0, "networks": 0}, {})
    arrays = {name: value for name, value in found._asdict().items() if value is not None}
    curves = {"one network": 100 * found.network}
    if found.ensemble is not None:
        size = settings.adversarial_networks
        which = f"{size} fresh" if sampler.num_available is None else f"{size} of the sampler's"
        curves[f"vote of {which} networks"] = 100 * found.ensemble
    metrics = {
        "images": found.images,
        "attacked": found.attacked,
        "networks": settings.adversarial_networks,
    } | {
        name: np.asarray(value).tolist()
        for name, value in arrays.items()
        if name not in ("images", "attacked")
    }
    figure = plots.success_curves(found.epsilons, curves)
    return Result(metrics, {"adversarial": Drawing(figure, arrays)})


def diversity_of_filters(subject: Subject) -> Result:
    """Diversity of each filter against the size of the next layer's weights on it."""
    from scipy.stats import spearmanr

    most = subject.sampler.num_available
    ensemble = subject.sampler.sample(min(200, most or 200), seed=_FILTER_DIVERSITY)
    found = filter_diversity(ensemble)
    metrics: dict[str, Any] = {"networks": len(ensemble), "layers": {}}
    arrays, panels = {}, {}
    for layer in found:
        place = layer.layer
        correlation = spearmanr(layer.diversity, layer.next_weights).statistic
        title = f"layer {place}"
        metrics["layers"][title] = {
            "diversity_mean": float(layer.diversity.mean()),
            "rank_correlation": float(correlation),
        }
        arrays[f"diversity_{place}"] = layer.diversity
        arrays[f"next_weights_{place}"] = layer.next_weights
        panels[f"{title}\nrank correlation {correlation:.2f}"] = layer[1:]
    if not panels:
        print("no diversity of filters: the gauge scales no filter of this target")
        return Result(metrics, {})
    figure = plots.filter_diversity(panels)
    return Result(metrics, {"filter_diversity": Drawing(figure, arrays)})


def _spread(values: np.ndarray) -> dict[str, float | None]:
    """Mean and standard deviation; of a single value there is none."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "std": deviation}


def _file_name(title: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in title).split())


class Analysis(NamedTuple):
    """An analysis: what runs it, how many networks it needs, and which settings it depends on."""

    run: Callable[[Subject], Result]
    needs: int
    uses: tuple[str, ...]


ANALYSES = {
    "accuracies": Analysis(accuracies, 1, ("num_networks", "ensembles")),
    "ensembles": Analysis(ensembles, 2, ("num_networks", "ensembles")),
    "filters": Analysis(filters, 1, ()),
    "scatter": Analysis(scatter, 7, ("scatter_networks", "colour")),
    "paths": Analysis(paths, 2, ("pairs", "points", "path_images")),
    "adversarial": Analysis(adversarial, 1, ("adversarial_images", "adversarial_networks", "clip")),
    "filter_diversity": Analysis(diversity_of_filters, 2, ()),
    "uncertainty": Analysis(uncertainty, 1, ("num_networks",)),
    "out_of_distribution": Analysis(out_of_distribution, 1, ("num_networks", "outside")),
}
