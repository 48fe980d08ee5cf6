"""How long a passing fault is put up with."""

import asyncio
import types

import pytest

from tfrecords_schema.storage import faults


@pytest.mark.parametrize(("count", "least", "most"), [(None, 63.75, 66.75), (3, 1.75, 3.25), (0, 0, 0)])
def test_pauses_grow_to_about_a_minute_in_all(monkeypatch, count, least, most):
    """By default; a place that has answered before is asked once more than there are retries."""
    slept, asked = [], []

    async def sleep(seconds):
        slept.append(seconds)

    async def ask():
        asked.append(True)
        raise ConnectionResetError("by peer")

    monkeypatch.setattr(faults, "asyncio", types.SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(faults, "_answered", {"s3://here"})
    with faults.retries(count), pytest.raises(ConnectionResetError):
        asyncio.run(faults.patiently(ask, "s3://here"))
    retries = faults.READ_RETRIES if count is None else count
    assert (len(asked), len(slept)) == (retries + 1, retries)
    assert least <= sum(slept) <= most
    assert all(0.25 * 2**n <= pause <= 0.25 * 2**n + 0.5 for n, pause in enumerate(slept[:6]))
    assert len(set(slept[:6])) == len(slept[:6]), "with jitter, so that workers do not come back together"
