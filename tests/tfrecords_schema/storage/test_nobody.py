"""Addresses at which nobody is, among images that are there: they cost seconds, and no other image."""

import socket
import time

import pytest

from pipelines.items import ImageError
from pipelines.vision import reading
from tfrecords_schema.storage import clients, faults


@pytest.fixture
def nobody(monkeypatch):
    """A port that nobody listens at, where every kind of store is looked for; without credentials."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{unheard.getsockname()[1]}"
        for name, value in (("AWS_ENDPOINT_URL", "http://"), ("STORAGE_EMULATOR_HOST", "http://")):
            monkeypatch.setenv(name, value + endpoint)
        clients.use_flags({})
        yield endpoint
    clients.use_flags({})


@pytest.fixture
def attempts(monkeypatch):
    """The faults of attempts, one by one."""
    seen = []
    real = faults.is_passing
    monkeypatch.setattr(faults, "is_passing", lambda error: seen.append(error) or real(error))
    return seen


@pytest.mark.parametrize(
    "uri", ["gs://bucket/{}.jpg", "s3://bucket/{}.jpg", "http://HOST/{}.jpg", "https://HOST/{}.jpg"]
)
def test_nobody_is_waited_for_where_nobody_ever_was(nobody, attempts, uri):
    """Ten attempts at each image would take a minute."""
    start = time.monotonic()
    for number in range(20):
        with pytest.raises(ImageError) as error:
            reading.read(uri.replace("HOST", nobody).format(number), faults.READ_RETRIES)
        assert error.value.error == "Unreachable"
    assert time.monotonic() - start < 20 and 20 <= len(attempts) < 20 * 4


def test_one_row_of_a_table_costs_the_others_nothing(make_features, coco_dir, tmp_path, nobody):
    paths = sorted((coco_dir / "train2017").iterdir())[:3]
    lines = [f"{path},A red circle.\n" for path in [*paths, "gs://bucket/a.jpg"]]
    (tmp_path / "t.csv").write_text("image,caption\n" + "".join(lines))
    start = time.monotonic()
    _, report = make_features(coco_dir=None, captions=[str(tmp_path / "t.csv")], max_reject_fraction=0.5)
    assert report["records"] == 3 and report["reject_reasons"] == {"read/Unreachable": 1}
    assert time.monotonic() - start < 40
