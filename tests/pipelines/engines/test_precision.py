"""`--precision auto`: what it comes to where, that it is recorded by its own name, and that reruns keep it."""

import json

import pyarrow.parquet as pq
import pytest

from pipelines.engines import precision, running
from pipelines.engines.engine import choose
from pipelines.vision import extractors, timing
from pipelines.vision.reading import Reading
from pipelines.vision.timing import Timed
from tests.support import google
from tests.support.full_disk import full_after
from tests.support.outputs import content
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import FeaturesInfo

READING = Reading(4, 10_000_000, 0)
PLAIN, LOWER = frozenset({"avx2"}), frozenset({"bf16"})


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], True),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=2"], True),
        (["--runner=FnApiRunner"], True),
        (["--runner=PrismRunner"], True),
        (["--runner=FlinkRunner", "--environment_type=LOOPBACK"], True),
        (["--runner=FlinkRunner"], False),
    ],
)
def test_which_engines_compute_here(flags, expected):
    assert choose(flags).computes_here is expected


def test_dataflow_computes_elsewhere():
    flags = ["--runner=DataflowRunner", "--sdk_container_image=i", "--project=my-project", "--region=europe-west4"]
    with google.emulated_bucket():
        assert not choose([*flags, "--temp_location=gs://captioning-tests/t"]).computes_here


class Counted:
    """In place of a Catalogue, of which only the number of images is asked for."""

    def __init__(self, images):
        self._images = images

    def counts(self):
        return {"train": self._images - 1, "val": 1}

    def sample(self, size):
        return []


@pytest.mark.parametrize(
    ("runner", "flags", "images", "exact", "expected", "said"),
    [
        ([], PLAIN, 5000, "bfloat16", "float32", "this machine has no bfloat16 instructions and no GPU"),
        ([], LOWER, 999, "float32", "float32", "other precisions are timed from 1,000 images on; --precision sets one"),
        ([], LOWER, 1000, "float32", "float32", "other precisions could not be timed (none of 0 images could be read)"),
        (
            ["--runner=FlinkRunner"],
            LOWER,
            5000,
            "float16",
            "float16",
            "other machines may compute, so nothing was timed; --precision sets another",
        ),
    ],
)
def test_where_nothing_is_timed(runner, flags, images, exact, expected, said, tiny_network, monkeypatch, capsys):
    monkeypatch.setattr(timing, "processor_flags", lambda: flags)
    extractor = extractors.Extractor(tiny_network, "random", 4, precision=exact)
    assert precision.settle(extractor, choose(runner), None, Counted(images), READING) == expected
    assert capsys.readouterr().out == f"precision   {expected}: {said}\n"


FASTER = [Timed("float32", 18.04, 1.0), Timed("bfloat16", 36.5, 0.99978)]
RATES = "float32 18.0 images/s (least cosine 1.0000), bfloat16 36.5 images/s (least cosine 0.9998)"


@pytest.fixture
def timed(monkeypatch):
    """A machine on which bfloat16 is faster; gives how many images it was asked to time, a number for each time."""
    asked = []

    def measure(extractor, items, reading):
        asked.append(len(items))
        return FASTER

    monkeypatch.setattr(timing, "processor_flags", lambda: LOWER)
    monkeypatch.setattr(precision, "_WORTH_TIMING", 1)
    monkeypatch.setattr(timing, "measure", measure)
    return asked


def recorded(output):
    info = FeaturesInfo.loads((output / "features_info.json").read_text())
    report = json.loads((output / "report.json").read_text())
    return info.features.precision, report["options"]["feature_precision"]


def test_what_was_found_is_recorded_and_kept_by_a_rerun(timed, make_features, tmp_path, monkeypatch, capsys):
    output, _ = make_features()
    assert timed == [32] and f"precision   bfloat16: timed on this machine: {RATES}\n" in capsys.readouterr().out
    assert recorded(output) == ("bfloat16", "bfloat16")
    given, _ = make_features(tmp_path / "given", precision="bfloat16")
    exact, _ = make_features(tmp_path / "exact", precision="float32")
    records_of = lambda output: {name: data for name, data in content(output).items() if "tfrecord" in name}  # noqa: E731
    assert records_of(output) == records_of(given) != records_of(exact)
    before = content(output)
    monkeypatch.setattr(timing, "processor_flags", lambda: PLAIN)  # wherever the rerun is
    capsys.readouterr()
    _, report = make_features()
    assert report["kept"] == 32 and content(output) == before and timed == [32]
    assert "precision" not in capsys.readouterr().out
    with pytest.raises(InputError, match="--precision was bfloat16, now float32"):
        make_features(precision="float32")
    make_features(overwrite=True)
    assert recorded(output) == ("float32", "float32"), "found out anew"


def test_a_run_that_broke_goes_on_in_its_precision(timed, make_features, tmp_path, monkeypatch):
    undisturbed, _ = make_features(tmp_path / "undisturbed", records_per_shard=5)
    output = tmp_path / "disturbed"
    with full_after(20), pytest.raises(running.PipelineError, match="No space left on device"):
        make_features(output, records_per_shard=5)
    monkeypatch.setattr(timing, "processor_flags", lambda: PLAIN)
    _, report = make_features(output, records_per_shard=5)
    assert report["shards_left"] > 0 and timed == [32, 32] and content(output) == content(undisturbed)


def test_captions_are_made_as_the_model_says_unless_auto_is_asked_for(timed, run, tmp_path, capsys):
    output, report = run()
    assert report["options"]["precision"] == "float32" and timed == []
    output, report = run(tmp_path / "auto", precision="auto")
    assert report["options"]["precision"] == "bfloat16" and timed == [8]
    assert f"precision   bfloat16: timed on this machine: {RATES}\n" in capsys.readouterr().out
    (table,) = output.glob("captions-*.parquet")
    assert json.loads(pq.read_schema(table).metadata[b"features"])["precision"] == "bfloat16"
    _, report = run(tmp_path / "auto", precision="auto")
    assert report["kept"] == 8 and timed == [8]


def test_a_saved_model_is_not_timed(timed, tiny_network, capsys, tmp_path):
    extractor = extractors.Extractor(tiny_network, "random", 4)
    extractor.name = extractors.SAVED_MODEL
    assert precision.settle(extractor, choose([]), None, Counted(5000), READING) == "float32"
    assert timed == [] and capsys.readouterr().out == "precision   float32: a SavedModel runs as it was saved\n"
