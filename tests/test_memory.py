"""Memory that does not follow the number of images; benchmarks/memory.py has the figures for images that are there."""

import pytest

from benchmarks.memory import peak_mb, write_absent


@pytest.mark.slow
def test_fifty_thousand_missing_images_in_flat_memory(tmp_path):
    """What an entry costs, in the launcher and in the in-process runner together, is some 3 kB."""
    peaks = {}
    for count in (5_000, 50_000):
        write_absent(tmp_path / f"{count}.json", count)
        flags = {
            "output": str(tmp_path / f"out{count}"),
            "train_captions": [str(tmp_path / f"{count}.json")],
            "train_images": [str(tmp_path)],
            "weights": "random",
            "max_reject_fraction": 1.0,
        }
        peaks[count] = peak_mb(flags)
    assert peaks[50_000] < peaks[5_000] + 220, peaks
