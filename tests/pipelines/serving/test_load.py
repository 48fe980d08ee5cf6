"""Many clients at a time, some of them hostile: every good request is answered right, and memory stays flat.

`python -m benchmarks.serve` is the long one, with figures.
"""

import pathlib

import pytest

from benchmarks.support import clients
from tests.support.serving import Served, running, until


def resident_mb(served: Served) -> float:
    text = pathlib.Path(f"/proc/{served.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.slow
def test_load_with_hostile_clients(trained, photos, tmp_path):
    flags = ("--upload_s", "1", "--max_queue", "64")
    with running(trained / "job/export", tmp_path / "log", *flags) as served:
        given = [(path.read_bytes(), served.captions(path.read_bytes()).json["images"][0]) for path in photos]

        def is_same(image, expected) -> bool:
            texts = [[one["caption"] for one in each["captions"]] for each in (image, expected)]
            return texts[0] == texts[1]

        found = clients.run(served.port, given, 400, 16, 0.1, is_same, seed=3)
        assert found.wrong == []
        assert set(found.counts) == set(clients.hostile(given[0][0])), "every kind came"
        assert len(found.seconds) == 400 - sum(found.counts.values())
        before = resident_mb(served)
        again = clients.run(served.port, given, 400, 16, 0.1, is_same, seed=4)
        assert again.wrong == [] and resident_mb(served) < before + 50
        until(lambda: served.figure("captioning_queue_images") == served.figure("captioning_held_bytes") == 0)
        assert served.figure('captioning_requests_total{outcome="fault"}') == 0
        assert served.end() == 0


def test_a_full_queue_turns_away_and_goes_on(trained, photos, tmp_path):
    """More clients than the queue has places: each is answered with captions, or with 429 and when to come again."""
    data = photos[0].read_bytes()
    with running(trained / "job/export", tmp_path / "log", "--max_queue", "4", "--max_batch", "2") as served:
        expected = served.captions(data).json["images"][0]
        found = clients.run(served.port, [(data, expected)], 300, 32)
        assert len(found.seconds) == 300 and all("429" in line and "queue_full" in line for line in found.wrong)
        assert 0 < len(found.wrong) < 300
        until(lambda: served.figure('captioning_requests_total{outcome="queue_full"}') == len(found.wrong))
        assert served.captions(data).json["images"][0]["captions"][0]["caption"] == expected["captions"][0]["caption"]
