"""A disk that is full after some records, for the processes of a run that are this one."""

import contextlib
import errno
from collections.abc import Iterator

import pytest

from pipelines.training_records import records


@contextlib.contextmanager
def full_after(count: int) -> Iterator[None]:
    """Only so many records are written."""
    encode, calls = records.record.encode, []

    def breaks_in_the_end(values, *how):
        calls.append(values["image/id"])
        if len(calls) > count:
            raise OSError(errno.ENOSPC, "No space left on device")
        return encode(values, *how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.record, "encode", breaks_in_the_end)
        yield
