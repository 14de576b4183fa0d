"""What TensorBoard shows of a run: curves, histograms, pictures, settings, sampled weights.

One run is one folder of event files. Each start of the run adds `….start`, which says from which
step on earlier points are void, and TensorFlow's own file; `….settings` is that of the last start.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hypernet_tf.analysis.filters import layer_operations, layer_pictures
from hypernet_tf.analysis.pca import spanned_coordinates
from hypernet_tf.ensembles.ensemble import Ensemble, Evaluation
from hypernet_tf.ensembles.io import write_aside

# What the curves show, under their names.
WORDS = {
    "training/loss": "lam · accuracy loss + diversity loss, mean over the steps since the last "
    "point.",
    "training/accuracy_loss": "Mean of the compiled loss over networks and their images.",
    "training/diversity_loss": "Of the hypernetwork minus the entropy of the weights, in nats.",
    "training/accuracy": "Of single networks, on the images that they are trained on.",
    "training/lam": "Weight of the accuracy loss.",
    "training/learning_rate": "Of the optimizer, at this step.",
    "training/steps_per_second": "Without validations. The first point includes tracing graphs.",
    "validation/member_accuracy": "Fraction of validation images, mean over networks.",
    "validation/member_accuracy_min": "The worst network's.",
    "validation/member_accuracy_max": "The best network's.",
    "validation/majority_vote_accuracy": "Of the class that most networks choose.",
    "validation/mean_probability_accuracy": "Of the class with the highest mean probability.",
    "validation/most_confident_accuracy": "Of the most confident network's choice.",
    "validation/negative_log_likelihood": "Of the networks' mean probability, in nats.",
    "validation/expected_calibration_error": "Of the mean probability, 15 bins of equal width.",
    "validation/entropy": "Of the sampled networks' weights, in nats.",
}
# The columns of the HParams table: settings that are shown before others, because runs differ in
# them, and the names of curves whose last points stand beside the settings.
FIRST_SETTINGS = ("dataset", "lam", "method", "seed", "steps")
CURVES = {
    "majority vote": "validation/majority_vote_accuracy",
    "mean member": "validation/member_accuracy",
    "NLL": "validation/negative_log_likelihood",
    "entropy": "validation/entropy",
}
# How much is shown: networks side by side, filters of a layer, and layers as pictures; networks
# whose weights are counted in histograms; networks in the projector.
NETWORKS, FILTERS, LAYERS = 8, 8, 8
WEIGHED = 25
POINTS = 200


class TensorBoardWriter:
    """Writes TensorBoard's files of one run.

    Args:
        folder: where to; made if missing.
        classes: the names of the classes, in the order of the labels.
        hparams: the run's settings, shown as text and as its row of the HParams table. Runs side by
            side in one table have the same names of settings.

    Example:
        >>> writer = TensorBoardWriter(folder, classes=dataset.classes, hparams={"lam": 1e3})
        >>> writer.start(step=0)
        >>> writer.record(250, {"loss": 2.1}, steps_per_second=6.0)
        >>> writer.networks(1_000, ensemble, ensemble.evaluate(x, y))
        >>> writer.finish(ensemble, ensemble.evaluate(x, y))
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        classes: Sequence[str],
        hparams: Mapping[str, int | float | str | bool] | None = None,
    ):
        self.folder = folder
        self.classes = classes
        self.hparams = dict(hparams or {})

    def start(self, step: int) -> None:
        """Open the files; points after `step`, of a part of the run that was lost, are void.

        Args:
            step: how many steps are done.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("start", self._void_after(step))
        # TensorBoard believes the first settings that it reads, and a run may be continued with
        # more steps than it was first asked for.
        for earlier in self.folder.glob("events.*.settings"):
            earlier.unlink()
        if self.hparams:
            self._write("settings", *self._settings())
        self._writer = tf.summary.create_file_writer(str(self.folder))

    def _write(self, kind: str, *events: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        now = time.time()
        # Files are read in the order of their names: "0" stands before any host's name.
        path = self.folder / f"events.out.tfevents.{int(now):010d}.0.{kind}"
        with tf.io.TFRecordWriter(str(path)) as file:
            for event in (Event(file_version="brain.Event:2"), *events):
                event.wall_time = now
                file.write(event.SerializeToString())

    def _void_after(self, step: int) -> Any:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        return Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def _settings(self) -> list[Any]:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api, api_pb2, summary
        from tensorboard.plugins.text.summary_v2 import text_pb

        rows = [f"| {name} | `{value}` |" for name, value in self.hparams.items()]
        table = "\n".join(["| setting | value |", "|---|---|", *rows])
        settings = [
            api_pb2.HParamInfo(name=name, differs=name in FIRST_SETTINGS) for name in self.hparams
        ]
        curves = [api.Metric(tag, display_name=name).as_proto() for name, tag in CURVES.items()]
        messages = (
            text_pb("configuration", table, "What the run was started with."),
            summary.experiment_pb(settings, curves),
            api.hparams_pb(self.hparams, trial_id=""),  # each run is a row of its own
        )
        # Some are TensorFlow's kind of message and some are TensorBoard's, the same in bytes.
        return [Event(summary=Summary.FromString(m.SerializeToString())) for m in messages]

    def record(self, step: int, entry: Mapping[str, Any], steps_per_second: float) -> None:
        """Points of the curves.

        Args:
            step: where they stand.
            entry: name -> value of training; "validation" may hold those of a validation, and
                with them "member_accuracies", of which a histogram is shown.
            steps_per_second: of training.
        """
        training = {name: value for name, value in entry.items() if isinstance(value, float)}
        training["steps_per_second"] = steps_per_second
        with self._writer.as_default(step=step):
            for part, values in ("training", training), ("validation", entry.get("validation", {})):
                for name, value in values.items():
                    tag = f"{part}/{name}"
                    if value is None:
                        continue
                    if name == "member_accuracies":
                        words = "Fraction of validation images, of each network."
                        tf.summary.histogram(tag, value, description=words)
                    else:
                        tf.summary.scalar(tag, value, description=WORDS.get(tag))
        self._writer.flush()

    def networks(self, step: int, ensemble: Ensemble, result: Evaluation) -> None:
        """Histograms of the weights, pictures of filters and of the ensemble's confusion.

        Args:
            step: where they stand.
            ensemble: networks sampled at this step.
            result: how they do.
        """
        from hypernet_tf import plots  # takes a second

        target = ensemble.target
        kinds = [type(operation).__name__ for operation in layer_operations(target)]
        tags = [f"layer_{place}_{kind}" for place, kind in enumerate(kinds, 1)]
        with self._writer.as_default(step=step):
            some = ensemble[:WEIGHED]
            rows = target.rows(some.weights.trainable)
            for tag, layer, weights in zip(tags, target.layers, rows, strict=True):
                words = f"All weights of layer '{layer.name}' in {len(some)} sampled networks."
                tf.summary.histogram(f"weights/{tag}", weights, description=words)
            for place, kind, pictures in layer_pictures(ensemble[:NETWORKS], FILTERS)[:LAYERS]:
                what = kind if "whole" in kind else f"first {kind}s, first input channel"
                title = f"layer {place} ({kinds[place - 1]}), step {step:,}: {what}"
                _image(
                    f"filters/{tags[place - 1]}",
                    plots.filter_table(pictures, title, kind),
                    f"The {what} of layer '{target.layers[place - 1].name}': a column for each "
                    "network, so that networks differ where a row is not of one kind.",
                )
            title = f"{len(ensemble)} networks' mean probability, step {step:,}"
            _image(
                "validation/confusion",
                plots.confusion(result.confusion, self.classes, title),
                "Which class (rows) the ensemble takes for which (columns); numbers count "
                "validation images.",
            )
        self._writer.flush()

    def finish(self, ensemble: Ensemble, result: Evaluation) -> None:
        """Write the projector's networks and the end of the run, and close.

        Args:
            ensemble: the last validation's networks.
            result: how they do.
        """
        self._project(ensemble[:POINTS], result.member_accuracy[:POINTS])
        if self.hparams:
            from tensorboard.plugins.hparams import api_pb2, summary

            end = summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            with self._writer.as_default(step=0):
                tf.summary.experimental.write_raw_pb(end.SerializeToString())
        self._writer.close()

    def _project(self, ensemble: Ensemble, accuracies: np.ndarray) -> None:
        """Weights as points, in coordinates that keep all distances between them."""
        if len(ensemble) < 4:
            return  # they span less than the three dimensions that are shown
        from tensorboard.plugins import projector

        theta = ensemble.theta()
        points = ["\t".join(f"{x:.7g}" for x in row) for row in spanned_coordinates(theta)]
        labels = [f"{accuracy:.4f}\t{number}" for number, accuracy in enumerate(accuracies, 1)]
        config = projector.ProjectorConfig()
        config.embeddings.add(
            tensor_name=f"all {theta.shape[1]:,} weights of {len(theta)} networks",
            tensor_path="projector_points.tsv",
            metadata_path="projector_labels.tsv",
        )
        for name, text in (
            ("projector_points.tsv", "\n".join([*points, ""])),
            ("projector_labels.tsv", "\n".join(["accuracy\tnetwork", *labels, ""])),
            ("projector_config.pbtxt", str(config)),
        ):
            write_aside(self.folder / name, lambda aside, text=text: aside.write_text(text))


def _image(tag: str, figure: Any, words: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[None, ..., :3]
    tf.summary.image(tag, pixels, description=words)
