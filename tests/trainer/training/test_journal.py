"""What a run leaves: tables, pictures and TensorBoard's events, read back from disk."""

import contextlib
import csv
import io
import math
import os
import resource

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfrecords_schema.errors import InputError
from trainer.training import journal
from trainer.training.journal import Journal, Sample, draw_history

ROWS = [
    {"epoch": 1, "phase": "cross_entropy", "loss": 4.5, "val_loss": 4.0},
    {"epoch": 2, "phase": "cross_entropy", "loss": 3.5, "val_loss": math.nan, "bleu_4": 0.1, "cider": 0.3},
    {"epoch": 3, "phase": "self_critical", "loss": math.inf, "bleu_4": 0.2, "cider": 0.5, "reward": 1e-9},
]


def read_history(job_dir: str) -> list[dict]:
    """The rows of history.csv, without empty cells, numbers as numbers."""
    with open(f"{job_dir}/history.csv", newline="") as file:
        return [{name: value(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def value(cell: str):
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(cell)
    return cell


def cells(path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def events(job_dir) -> EventAccumulator:
    return EventAccumulator(str(job_dir / "tensorboard"), size_guidance={"tensors": 0}).Reload()


def numbers(job_dir, name: str) -> list[tuple[int, float]]:
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events(job_dir).Tensors(name)]


def test_history_is_a_table_with_all_columns_and_reads_back(tmp_path):
    job_dir = tmp_path / "new" / "job"
    Journal(str(job_dir)).write_history(ROWS[:1])
    Journal(str(job_dir)).write_history(ROWS)
    assert cells(job_dir / "history.csv") == [
        ["epoch", "phase", "loss", "val_loss", "bleu_4", "cider", "reward"],
        ["1", "cross_entropy", "4.5", "4.0", "", "", ""],
        ["2", "cross_entropy", "3.5", "nan", "0.1", "0.3", ""],
        ["3", "self_critical", "inf", "", "0.2", "0.5", "1e-09"],
    ]
    assert str(read_history(str(job_dir))) == str(ROWS)  # nan is not itself
    assert sorted(os.listdir(job_dir)) == ["history.csv", "loss.png"]


VALUES = st.one_of(st.floats(allow_nan=False), st.integers(), st.sampled_from(["cross_entropy", "self_critical"]))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=4), VALUES, min_size=1, max_size=4), max_size=4))
def test_any_history_reads_back(rows):
    found = journal._table(list(dict.fromkeys(key for row in rows for key in row)), rows)
    header, *lines = csv.reader(io.StringIO(found.decode(), newline=""))
    assert [{n: value(cell) for n, cell in zip(header, line, strict=True) if cell} for line in lines] == rows


def test_numpy_numbers_are_written_as_numbers(tmp_path):
    Journal(str(tmp_path)).write_history([{"epoch": np.int64(1), "loss": np.float32(0.5), "val_loss": np.float64(0.1)}])
    assert read_history(str(tmp_path)) == [{"epoch": 1, "loss": 0.5, "val_loss": 0.1}]


def drawn(rows) -> np.ndarray:
    picture = Image.open(io.BytesIO(draw_history(rows)))
    assert picture.format == "PNG" and picture.size == (1200, 480)
    return np.asarray(picture.convert("RGB")).astype(int)


def test_loss_picture_shows_each_line_where_it_belongs():
    without = drawn([{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}])
    metrics = drawn([{"epoch": 1, "loss": 3.0, "cider": 0.2}, {"epoch": 2, "loss": 2.0, "cider": 0.4}])
    changed = np.abs(without - metrics).sum(axis=(0, 2)) > 0  # [width]
    assert changed[650:].any()


def test_each_phase_begins_with_a_line():
    rows = [{"epoch": epoch, "loss": 4.0 - epoch} for epoch in (1, 2, 3)]

    def differ(*phases):
        given = [{**row, "phase": phase} for row, phase in zip(rows, phases, strict=True)]
        return (np.abs(drawn(rows) - drawn(given))[60:, 50:580].sum(axis=2) > 0).sum()  # below the legend

    one, two = differ("a", "b", "b"), differ("a", "b", "c")
    assert two > one + 50 > 150 and differ("a", "a", "a") == 0


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}],
        [{"loss": 1.0}],
        [{"epoch": 1, "loss": math.nan, "val_loss": math.inf, "cider": -math.inf}],
        ROWS,
        [{"epoch": i, "loss": 1e30 * i, "meteor": 0.0} for i in range(1, 300)],
    ],
)
def test_any_rows_can_be_drawn(rows):
    assert len(np.unique(drawn(rows))) > 10


def test_a_picture_that_fails_is_told_once_and_stops_nothing(tmp_path, capsys):
    writer = Journal(str(tmp_path))
    for _ in range(2):
        writer.write_history([{"epoch": 1, "loss": "three\nand a half"}])
    assert cells(tmp_path / "history.csv")[1] == ["1", "three\nand a half"]
    told = capsys.readouterr().err
    assert told.startswith("warning: cannot draw loss.png: TypeError: ") and told.count("\n") == 1


def test_what_cannot_be_written_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Journal(str(tmp_path / "file")).write_history(ROWS)
    with pytest.raises(OSError):
        Journal(str(tmp_path / "file")).samples(1, [])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_raises_and_leaves_the_last_table(tmp_path):
    writer = Journal(str(tmp_path))
    writer.write_history(ROWS[:1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # bytes of a file; Python has the signal ignored
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.write_history(ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(read_history(str(tmp_path))) == 1


def test_scalars_are_on_disk_at_once_and_a_resumed_run_adds_to_them(tmp_path):
    first = Journal(str(tmp_path))
    assert not (tmp_path / "tensorboard").exists()
    first.scalars(10, {"loss": 2.5, "rate": 1e-3})
    first.scalars(20, {"loss": math.nan})
    assert numbers(tmp_path, "rate") == [(10, pytest.approx(1e-3))]
    Journal(str(tmp_path)).scalars(30, {"loss": 1.5})
    (a, b, c) = numbers(tmp_path, "loss")
    assert (a, c) == ((10, 2.5), (30, 1.5)) and b[0] == 20 and math.isnan(b[1])


def test_numbers_too_large_for_tensorboard_are_its_largest(tmp_path):
    """As norms are of a run that goes wrong, before its loss is no number any more."""
    Journal(str(tmp_path)).scalars(10, {"norm": 1e39, "other": -1e39})
    largest = float(np.finfo(np.float32).max)
    assert (numbers(tmp_path, "norm"), numbers(tmp_path, "other")) == ([(10, largest)], [(10, -largest)])


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    """A wide red image, one that is absent, one inside a zip file, one that is no image."""
    Image.new("RGB", (640, 240), "red").save(tmp_path / "wide.png")
    (tmp_path / "text.jpg").write_text("no image")
    return [
        Sample("007", str(tmp_path / "wide.png"), "a man on a horse", ["A man rides.", "Another."]),
        Sample("b_b", str(tmp_path / "absent.jpg"), "", []),
        Sample("c", str(tmp_path / "x.zip!/c.jpg"), "wörter " * 60, ["第 一" * 90]),
        Sample("d", str(tmp_path / "text.jpg"), "x" * 500, ['<script>alert("1")</script> | **b**\nc']),
    ]


def test_samples_are_pictures_over_their_captions(tmp_path, samples):
    Journal(str(tmp_path)).samples(2, samples)
    (event,) = events(tmp_path).Tensors("samples/images")
    width, height, *pngs = tf.make_ndarray(event.tensor_proto)
    assert event.step == 2 and (int(width), int(height)) == (320, 352) and len(pngs) == 4
    wide, *others = (np.asarray(Image.open(io.BytesIO(png))) for png in pngs)
    # 640 x 240 fits as 320 x 120, in the middle of its panel.
    assert (wide[60:180] == [255, 0, 0]).all() and (wide[:60] == 200).all() and (wide[180:240] == 200).all()
    assert all((other[:240] == 200).all() for other in others)
    dark = [(picture[240:] < 64).all(axis=2) for picture in (wide, *others)]  # [112, 320] each
    assert [bool(d.any()) for d in dark] == [True, False, True, True]
    assert not any(d[:, -2:].any() or d[-3:].any() for d in dark)  # wrapped, and cut at the last line


def test_samples_are_a_table_that_shows_text_as_it_stands(tmp_path, samples):
    Journal(str(tmp_path)).samples(2, samples)
    (event,) = events(tmp_path).Tensors("samples/captions")
    text = tf.make_ndarray(event.tensor_proto).item().decode()
    lines = text.split("\n")
    assert lines[:3] == ["id | caption | a reference", "---|---|---", "007 | a man on a horse | A man rides&#46;"]
    assert len(lines) == 6 and not set("<>*_\"'") & set("".join(lines[2:])) and lines[5].count("|") == 2


def test_samples_csv_grows_by_epoch_and_survives_a_resume(tmp_path):
    def sample(caption: str) -> list[Sample]:
        return [Sample("007", "", caption, ["A man.", "another, one"])]

    first = Journal(str(tmp_path))
    first.samples(1, sample('a "man", 1e5'))
    first.samples(2, sample("lost\rwith the\nrun"))
    resumed = Journal(str(tmp_path))
    resumed.samples(2, sample(""))
    resumed.samples(3, [*sample("nan"), Sample("b", "", "c")])
    assert cells(tmp_path / "samples.csv") == [
        ["epoch", "image_id", "caption", "references"],
        ["1", "007", 'a "man", 1e5', "A man. | another, one"],
        ["2", "007", "", "A man. | another, one"],
        ["3", "007", "nan", "A man. | another, one"],
        ["3", "b", "c", ""],
    ]


def test_a_run_from_before_there_were_references_goes_on(tmp_path):
    (tmp_path / "samples.csv").write_text("epoch,image_id,caption\n1,007,a man\n2,007,lost\n")
    Journal(str(tmp_path)).samples(2, [Sample("007", "", "a horse", ["a man on a horse"])])
    assert cells(tmp_path / "samples.csv") == [
        ["epoch", "image_id", "caption", "references"],
        ["1", "007", "a man", ""],
        ["2", "007", "a horse", "a man on a horse"],
    ]


def test_a_journal_without_samples_writes_an_empty_table(tmp_path):
    Journal(str(tmp_path)).samples(1, [])
    assert cells(tmp_path / "samples.csv") == [["epoch", "image_id", "caption", "references"]]


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"epoch,image_id,caption\nx,1,2\n", b"epoch\n1,2\n", b"\xff"])
def test_a_strange_table_is_told(tmp_path, content):
    (tmp_path / "samples.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        Journal(str(tmp_path))
    message = str(caught.value)
    assert message.startswith("--job_dir: ") and "samples.csv: expected a table of an earlier run" in message
