"""What a run leaves for people to look at: a table, a picture of it, TensorBoard, and captions epoch by epoch."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files
from tfrecords_schema.text import one_line
from trainer.scoring import metrics

HISTORY = "history.csv"
LOSS = "loss.png"
SAMPLES = "samples.csv"
SAMPLE_COLUMNS = ("epoch", "image_id", "caption", "references")
TENSORBOARD = "tensorboard"

LOSSES = {"loss": "training", "val_loss": "validation"}
METRICS = {name: metrics.METRICS[name] for name in ("bleu_4", "meteor", "rouge_l", "cider")}

_PICTURE = (320, 240)  # pixels of an image in TensorBoard; its captions stand below
_LINE, _LINES = 16, 3  # pixels of a line of text; lines for a caption
_GREY = (200, 200, 200)
_LARGEST = float(np.finfo(np.float32).max)  # that TensorBoard takes


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image of the validation split with the caption that the model gives it now, and those that people gave it."""

    id: str
    uri: str
    caption: str
    references: Sequence[str] = ()

    def __str__(self) -> str:
        """The caption beside the first reference, in one line."""
        said = " ".join("".join(self.references[:1]).split())
        return f"  caption  {self.caption:<40}  | people: {said}"


class Journal:
    """Writes under `job_dir`: history.csv, loss.png, samples.csv, tensorboard/.

    Every file but TensorBoard's is written whole and renamed. What cannot be written raises OSError, or TensorBoard's
    tf.errors.OpError, for a training that can leave nothing must not go on; a picture that cannot be drawn is told on
    stderr, once.

    A resumed run opens another event file in tensorboard/. Where it repeats steps that the killed run had written,
    TensorBoard (its default reader; not `--load_fast=false`) shows the later file's and drops what follows them.
    """

    def __init__(self, job_dir: str):
        """Reads an earlier run's samples.csv, to go on with it. Raises InputError where it is something else."""
        self.job_dir = job_dir
        self._samples = _read(os.path.join(job_dir, SAMPLES), _sample_row)
        self._warned = False
        self._opened_writer = None
        self._panels: dict[str, Image.Image] = {}  # by URI: the samples are the same in every epoch

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """history.csv with a line for each row, and loss.png. Columns are all keys, in the order they first appear in.

        Keys that are drawn: `epoch`, from 1; those of LOSSES and METRICS; `phase`, one of config.PHASES.
        """
        self._write(HISTORY, _table(list(dict.fromkeys(key for row in rows for key in row)), rows))
        with self._never_fatal(LOSS):
            self._write(LOSS, draw_history(rows))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, to TensorBoard; on disk when this returns."""
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, np.clip(value, -_LARGEST, _LARGEST))  # NaN stays
        self._writer.flush()

    def samples(self, epoch: int, samples: Sequence[Sample]) -> None:
        """Captions of one epoch, to TensorBoard (with their images) and to samples.csv, in place of that epoch's."""
        rows = [row for row in self._samples if row["epoch"] != epoch]
        values = ((epoch, s.id, s.caption, " | ".join(s.references)) for s in samples)
        rows += [dict(zip(SAMPLE_COLUMNS, row, strict=True)) for row in values]
        self._samples = sorted(rows, key=lambda row: row["epoch"])
        self._write(SAMPLES, _table(SAMPLE_COLUMNS, self._samples))
        with self._writer.as_default(epoch):
            lines = ["id | caption | a reference", "---|---|---"]
            lines += [" | ".join(map(_markdown, (s.id, s.caption, *s.references[:1]))) for s in samples]
            tf.summary.text("samples/captions", "\n".join(lines))
            with self._never_fatal("TensorBoard's samples"):
                if samples:
                    pictures = np.stack([np.asarray(self._draw_sample(sample)) for sample in samples])
                    tf.summary.image("samples/images", pictures, max_outputs=len(pictures))
        self._writer.flush()

    @property
    def _writer(self):
        if self._opened_writer is None:
            self._opened_writer = tf.summary.create_file_writer(os.path.join(self.job_dir, TENSORBOARD))
        return self._opened_writer

    def _write(self, name: str, content: bytes) -> None:
        files.make_directory(self.job_dir)
        files.replace(self.job_dir, {name: content})

    @contextlib.contextmanager
    def _never_fatal(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # drawing libraries raise anything; days of training must not end for a picture
            if not self._warned:
                text = f"{type(error).__name__}: {one_line(error)}"
                print(f"warning: cannot draw {what}: {text}", file=sys.stderr, flush=True)
            self._warned = True

    def _draw_sample(self, sample: Sample) -> Image.Image:
        """The image in its panel, over its caption in black and its first reference in grey."""
        if sample.uri not in self._panels:
            self._panels[sample.uri] = _panel(sample.uri)
        width, height = _PICTURE
        picture = Image.new("RGB", (width, height + (2 * _LINES + 1) * _LINE), "white")
        picture.paste(self._panels[sample.uri])
        draw = ImageDraw.Draw(picture)
        # matplotlib's font: Pillow's own has no letters beyond Latin.
        font = ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 12)
        columns = int((width - 8) / font.getlength("n"))
        for i, (text, colour) in enumerate([(sample.caption, "black"), ("".join(sample.references[:1]), "dimgrey")]):
            lines = textwrap.wrap(text, columns, max_lines=_LINES, placeholder=" …")
            draw.text((4, height + 6 + i * _LINES * _LINE), "\n".join(lines), fill=colour, font=font, spacing=2)
        return picture


def draw_history(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: losses on the left, validation metrics on the right, by epoch; a line where the phase changes."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # and no pyplot: that has global state, and may look for a display
    epochs = [row.get("epoch", i) for i, row in enumerate(rows, start=1)]
    phases = [row.get("phase", "") for row in rows]
    begins = {phases[i]: (epochs[i - 1] + epochs[i]) / 2 for i in range(1, len(rows)) if phases[i - 1] != phases[i]}
    panels = {"loss": LOSSES, "validation score": METRICS}
    for axes, (title, names) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axes.set(xlabel="epoch", ylabel=title)
        axes.set_xlim(min(epochs, default=1) - 0.5, max(epochs, default=1) + 0.5)  # a single epoch has no width
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        for name, label in names.items():
            points = [(epoch, row.get(name, math.nan)) for epoch, row in zip(epochs, rows, strict=True)]
            points = [point for point in points if math.isfinite(point[1])]  # metrics may be of every third epoch
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        if not axes.lines:
            axes.text(0.5, 0.5, "none yet", ha="center", color="grey", transform=axes.transAxes)
            continue
        for (phase, epoch), style in zip(begins.items(), itertools.cycle(("--", ":"))):
            named = phase.replace("_", "-") if names is LOSSES else None  # once: the other panel has no room
            axes.axvline(epoch, color="grey", linestyle=style, label=named)
        # Above the panel, where no line can be under it.
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(names) + len(begins)}
        axes.legend(**place, frameon=False, fontsize="small", handlelength=1.2, columnspacing=1.2)
    content = io.BytesIO()
    canvas.print_png(content)
    return content.getvalue()


def _panel(uri: str) -> Image.Image:
    """The image, fitted into `_PICTURE` pixels; grey where it cannot be read from here, as in a zip file."""
    panel = Image.new("RGB", _PICTURE, _GREY)
    try:
        image = ImageOps.exif_transpose(Image.open(files.open_binary(uri)))
        image = ImageOps.contain(image.convert("RGB"), _PICTURE)
    except Exception:  # Pillow has no common class for what it raises
        return panel
    panel.paste(image, ((panel.width - image.width) // 2, (panel.height - image.height) // 2))
    return panel


def _markdown(text: str) -> str:
    """Text as it stands, in a cell of a Markdown table: every mark that could mean something is a numeric entity."""
    return re.sub(r"[^\w\s]|_", lambda mark: f"&#{ord(mark[0])};", " ".join(text.split()))


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """CSV, with empty cells where a row lacks a column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _read(path: str, row_of: Callable[[dict[str, str]], dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a CSV file that `_table` wrote; [] where there is none. Raises InputError where it is something else."""
    try:
        text = files.read_text(path)
        if not text:
            return []
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        return [row_of(dict(zip(header, row, strict=True))) for row in rows]
    except (KeyError, OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"--job_dir: {path}: expected a table of an earlier run, found something else ({one_line(error)}); "
            "delete it, or give another --job_dir"
        ) from None


def _sample_row(cells: dict[str, str]) -> dict[str, Any]:
    """A row of samples.csv. Without the column of references, as earlier versions wrote it, these are empty."""
    needed = {name: cells[name] for name in ("epoch", "image_id", "caption")}
    return {**needed, "epoch": int(cells["epoch"]), "references": cells.get("references", "")}
