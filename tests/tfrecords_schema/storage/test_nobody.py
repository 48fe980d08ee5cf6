"""Addresses at which nobody is, among images that are there: they cost seconds, and no other image."""

import socket
import time

import pytest

from pipelines.items import ImageError
from pipelines.vision import reading
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import clients, faults
from tfrecords_schema.storage.filesystems import require_filesystems


@pytest.fixture
def port(monkeypatch):
    """A socket where every kind of store is looked for; nobody listens at it, and there are no credentials."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{unheard.getsockname()[1]}")
        clients.use_flags({})
        yield unheard
    clients.use_flags({})


@pytest.fixture
def nobody(port):
    """Its address."""
    return f"127.0.0.1:{port.getsockname()[1]}"


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


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_who_takes_a_question_and_never_answers_is_no_store(port, kind, monkeypatch):
    """As another kind of server may, where its address is given by mistake; a store would have half a minute."""
    port.listen()
    monkeypatch.setattr(faults, "_SILENCE_S", 0.5)
    with pytest.raises(InputError) as error:
        require_filesystems(images=f"{kind}://bucket/place")
    told = f"--images: expected a bucket that answers, found {kind}://bucket: no answer within 0.5 seconds"
    assert str(error.value) == told


def test_one_row_of_a_table_costs_the_others_nothing(make_features, coco_dir, tmp_path, nobody):
    paths = sorted((coco_dir / "train2017").iterdir())[:3]
    lines = [f"{path},A red circle.\n" for path in [*paths, "gs://bucket/a.jpg"]]
    (tmp_path / "t.csv").write_text("image,caption\n" + "".join(lines))
    start = time.monotonic()
    _, report = make_features(coco_dir=None, captions=[str(tmp_path / "t.csv")], max_reject_fraction=0.5)
    assert report["records"] == 3 and report["reject_reasons"] == {"read/Unreachable": 1}
    assert time.monotonic() - start < 40
