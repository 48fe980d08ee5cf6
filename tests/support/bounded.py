"""Reading and decoding in a child process of bounded memory, which tells what came of it and what it took."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from tests.support import ROOT

_CODE = """
import concurrent.futures, json, resource, sys
import PIL.Image, pyarrow.parquet
from pipelines.items import ImageError
from pipelines.vision import images, reading

uris, threads, limit_mb, size, max_pixels = json.loads(sys.argv[1])
PIL.Image.init()
peak_mb = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
virtual = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (virtual + limit_mb * 2**20,) * 2)

def outcome(uri):
    try:
        data = reading.read(uri)
        return images.decode(data, size, max_pixels).rgb.tolist() if size else len(data)
    except ImageError as error:
        return [error.stage, error.error, error.message]
    except MemoryError:
        return "MemoryError"

before = peak_mb()
with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    print(json.dumps([list(pool.map(outcome, uris)), peak_mb() - before]))
"""


def read(
    uris: Sequence[str], limit_mb: int, threads: int = 1, size: int | None = None, max_pixels: int = 89_478_485
) -> tuple[list, float]:
    """(what came of each, megabytes that were taken at the peak, above those of the imported modules).

    What came is a list of (stage, error, message), the number of bytes read, or, where `size` is given, the pixels.

    Args:
      limit_mb: of address space for all of it; of each thread's stack and heap too.
    """
    arguments = json.dumps([list(uris), threads, limit_mb, size, max_pixels])
    command = [sys.executable, "-W", "ignore", "-c", _CODE, arguments]
    environment = {"MALLOC_ARENA_MAX": "1", "PATH": ""}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not found.returncode, found.stderr[-2000:]
    assert not found.stderr, found.stderr[-2000:]
    outcomes, peak_mb = json.loads(found.stdout)
    return outcomes, peak_mb
