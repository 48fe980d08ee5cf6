"""Memory that does not follow the number of images; benchmarks/memory.py has the figures for images that are there."""

import pytest

from benchmarks.memory import peak_mb, write_absent


@pytest.mark.slow
def test_fifty_thousand_missing_images_in_flat_memory(tmp_path):
    """What an entry costs, in the launcher and in the in-process runner together, is some 3 kB."""
    peaks = {count: peak_mb(write_absent(tmp_path, count)) for count in (5_000, 50_000)}
    assert peaks[50_000] < peaks[5_000] + 220, peaks
