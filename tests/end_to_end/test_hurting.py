"""The real command on a store that misbehaves: nothing is lost, and what failed for good is tried again."""

import pytest

from tests.support import hurting, stores
from tests.support.outputs import content, rows
from tfrecords_schema.storage import clients

pytestmark = pytest.mark.slow
COUNT = 600  # 2,000 were seen too, and take three times as long


@pytest.fixture
def store(tmp_path, coco_dir, monkeypatch):
    """(A store with 600 images, the proxy before it), for the clients of this process."""
    images = [path.read_bytes() for path in sorted((coco_dir / "train2017").iterdir())]
    with stores.running("s3", tmp_path) as server, hurting.proxy(server.endpoint, seed=5) as proxy:
        for number in range(COUNT):
            server.put(f"images/{number:04}.jpg", images[number % len(images)])
        for name, value in server.env.items():
            monkeypatch.setenv(name, proxy.endpoint if value == server.endpoint else value)
        clients.use_flags({})
        yield server, proxy
    clients.use_flags({})


def test_images_lie_in_a_store_that_misbehaves(store, run, tmp_path):
    server, proxy = store
    flags = {"images": [server.url("images")], "rows_per_file": 75, "beam_width": 1}
    undisturbed, _ = run(tmp_path / "undisturbed", **flags)

    proxy.share, proxy.hurts = 0.04, ("reset", "busy", "cut", "slow")
    disturbed, report = run(tmp_path / "disturbed", **flags)
    assert proxy.hurt > COUNT / 50 and report["records"] == COUNT and report["rejects"] == 0
    assert content(disturbed) == content(undisturbed)

    # Also what is written.
    _, report = run(server.url("captions"), **flags)
    assert report["records"] == COUNT and report["rejects"] == 0
    proxy.share = 0.0
    assert content(server.get_directory("captions", tmp_path / "copied")) == content(undisturbed)

    bad = [f"{number:04}" for number in (3, 150, 151, 400, 599)]
    proxy.broken = tuple(f"/images/{name}.jpg" for name in bad)
    output, report = run(tmp_path / "output", **flags, read_retries=1)
    assert report["reject_reasons"] == {"read/Unreachable": 5}
    assert rows(output).keys() == {f"{number:04}" for number in range(COUNT)} - set(bad)
    _, report = run(tmp_path / "output", **flags, read_retries=1)
    assert (report["kept"], report["new"], report["retried"], report["rejects"]) == (COUNT - 5, 0, 5, 5)
    assert report["shards_left"] == report["shards"]

    proxy.broken = ()
    _, report = run(tmp_path / "output", **flags, read_retries=1)
    assert (report["kept"], report["new"], report["retried"], report["rejects"]) == (COUNT - 5, 0, 5, 0)
    assert rows(output).keys() == rows(undisturbed).keys()
    assert {i: r["caption"] for i, r in rows(output).items()} == {i: r["caption"] for i, r in rows(undisturbed).items()}
