"""TensorBoard's files of a run: curves, histograms, pictures, settings, sampled weights.

One run is one folder of event files. Each start of the run adds `….start`, which makes earlier
points after its step void, and TensorFlow's own file; `….settings` is that of the last start.
"""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hypernet_tf.analysis.filters import layer_operations, layer_pictures
from hypernet_tf.analysis.pca import spanned_coordinates
from hypernet_tf.ensembles.ensemble import Ensemble, Evaluation
from hypernet_tf.files import write_aside
from hypernet_tf.metrics.measures import MEASURES, main_measures

# Columns of the HParams table: the settings that are shown first, because runs differ in them;
# main measures of the last validation stand beside them.
FIRST_SETTINGS = ("dataset", "lam", "method", "seed", "steps")
# Numbers of what is shown: networks, filters and layers as pictures; networks whose weights make
# the histograms; networks in the projector.
PICTURE_NETWORKS, PICTURE_FILTERS, PICTURE_LAYERS = 8, 8, 8
HISTOGRAM_NETWORKS = 25
PROJECTOR_NETWORKS = 200


class TensorBoardWriter:
    """Writes TensorBoard's files of one run.

    Args:
        folder: Folder of the files, made if missing.
        classes: Names of the classes, in the order of the labels.
        hparams: Settings of the run, shown as text and as a row of the HParams table. Runs in one
            table have the same names of settings.

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
        """Open the files and make points after `step` void, from a part of the run that was lost.

        Args:
            step: Number of steps that are done.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("start", self._void_after(step))
        # TensorBoard keeps the first settings that it reads, but a run may be continued with more
        # steps than before.
        for earlier in self.folder.glob("events.*.settings"):
            earlier.unlink()
        if self.hparams:
            self._write("settings", *self._settings())
        self._writer = tf.summary.create_file_writer(str(self.folder))

    def _write(self, kind: str, *events: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        now = time.time()
        # Files are read in the order of their names: "0" comes before any host name.
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
        columns = [
            api.Metric(f"validation/{key}", display_name=MEASURES[key].title).as_proto()
            for key in (*main_measures(), "entropy")
        ]
        messages = (
            text_pb("configuration", table, "The settings of the run."),
            summary.experiment_pb(settings, columns),
            api.hparams_pb(self.hparams, trial_id=""),  # each run is a row of its own
        )
        # Some are messages of TensorFlow, some of TensorBoard, with the same bytes.
        return [Event(summary=Summary.FromString(m.SerializeToString())) for m in messages]

    def record(self, step: int, entry: Mapping[str, Any], steps_per_second: float) -> None:
        """Add a point to the curves.

        The tags are `training/<key>` and `validation/<key>`, with the descriptions of `MEASURES`.
        Metrics of training that are not in this table, which a sampler or a user adds, have no
        description.

        Args:
            step: Step of the point.
            entry: Entry of the history: key -> value of training. With a validation, "validation"
                holds the entry of `callbacks.validation_entry`.
            steps_per_second: Speed of training.
        """
        training = {key: value for key, value in entry.items() if isinstance(value, float)}
        training["steps_per_second"] = steps_per_second
        validation = dict(entry.get("validation", {}))
        accuracies = validation.pop("member_accuracies", None)
        with self._writer.as_default(step=step):
            for key, value in training.items():
                description = MEASURES[key].description if key in MEASURES else None
                tf.summary.scalar(f"training/{key}", value, description=description)
            for key, value in validation.items():
                description = MEASURES[key].description
                if value is not None:
                    tf.summary.scalar(f"validation/{key}", value, description=description)
            if accuracies is not None:
                tf.summary.histogram(
                    "validation/member_accuracies",
                    accuracies,
                    description="Accuracy of each network on the validation images.",
                )
        self._writer.flush()

    def networks(self, step: int, ensemble: Ensemble, result: Evaluation) -> None:
        """Add histograms of the weights, pictures of filters, and the confusion of the ensemble.

        Args:
            step: Step at which they are shown.
            ensemble: Networks sampled at this step.
            result: Their evaluation.
        """
        from hypernet_tf import plots  # takes a second

        target = ensemble.target
        kinds = [type(operation).__name__ for operation in layer_operations(target)]
        tags = [f"layer_{number}_{kind}" for number, kind in enumerate(kinds, 1)]
        with self._writer.as_default(step=step):
            networks = ensemble[:HISTOGRAM_NETWORKS]
            rows = target.rows(networks.weights.trainable)
            for tag, layer, weights in zip(tags, target.layers, rows, strict=True):
                words = f"All weights of layer '{layer.name}' in {len(networks)} sampled networks."
                tf.summary.histogram(f"weights/{tag}", weights, description=words)
            layers = layer_pictures(ensemble[:PICTURE_NETWORKS], PICTURE_FILTERS)
            for number, kind, pictures in layers[:PICTURE_LAYERS]:
                shown = kind if "whole" in kind else f"first {kind}s, first input channel"
                title = f"layer {number} ({kinds[number - 1]}), step {step:,}: {shown}"
                _image(
                    f"filters/{tags[number - 1]}",
                    plots.filter_table(pictures, title, kind),
                    f"The {shown} of layer '{target.layers[number - 1].name}': a column for each "
                    "network. Networks differ if the pictures of a row differ.",
                )
            if result.confusion is not None:
                title = f"{len(ensemble)} networks' mean probability, step {step:,}"
                _image(
                    "validation/confusion",
                    plots.confusion(result.confusion, self.classes, title),
                    "Validation images of each class (rows) that the ensemble assigns to each "
                    "class (columns).",
                )
        self._writer.flush()

    def finish(self, ensemble: Ensemble, result: Evaluation) -> None:
        """Write the projector's networks and the end of the run, and close.

        Args:
            ensemble: Networks of the last validation.
            result: Their evaluation.
        """
        accuracies = result.member_accuracy[:PROJECTOR_NETWORKS]
        self._project(ensemble[:PROJECTOR_NETWORKS], accuracies)
        if self.hparams:
            from tensorboard.plugins.hparams import api_pb2, summary

            end = summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            with self._writer.as_default(step=0):
                tf.summary.experimental.write_raw_pb(end.SerializeToString())
        self._writer.close()

    def _project(self, ensemble: Ensemble, accuracies: np.ndarray) -> None:
        """Show weights as points, in coordinates that keep all distances between them."""
        if len(ensemble) < 4:
            return  # they span fewer than the three dimensions that are shown
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
            write_aside(self.folder / name, functools.partial(pathlib.Path.write_text, data=text))


def _image(tag: str, figure: Any, description: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[None, ..., :3]
    tf.summary.image(tag, pixels, description=description)
