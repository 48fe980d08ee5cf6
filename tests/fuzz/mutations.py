"""Seeded changes of a file, of any kind: of its bytes, and of what it says by its kind."""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Callable, Sequence

from tests.fuzz import (
    json_mutations,
    odd,
    parquet_mutations,
    record_mutations,
    tar_mutations,
    text_mutations,
    zip_mutations,
)

_OF_BYTES = 0.4  # the share of files whose bytes are changed, whatever they say


@dataclasses.dataclass(frozen=True)
class Context:
    """What a change is made with: its randomness, an absolute path to lead out to, and other files to take from."""

    rng: random.Random
    place: str
    spare: Sequence[bytes]


def mutate(path: pathlib.Path, context: Context) -> str:
    """Changes a file, and says how."""
    rng = context.rng
    change = _BY_ENDING.get(path.suffix.lower()) if rng.random() >= _OF_BYTES else None
    data = path.read_bytes()
    if change:
        try:
            return f"{path.name}: {change(path, rng, context.place)}"
        except Exception:  # the format's writers raise anything where they refuse what is odd: then its bytes
            path.write_bytes(data)
    if rng.random() < 0.05:
        return f"{path.name}: {rng.choice([_remove, _empty, _folder, _loop])(path)}"
    told = []
    for _ in range(rng.choice([1, 1, 2, 5])):
        way = rng.choice(_WAYS)
        data = way(data, context)
        told.append(way.__name__.strip("_"))
    path.write_bytes(data)
    return f"{path.name}: {', '.join(told)}"


def _remove(path: pathlib.Path) -> str:
    path.unlink()
    return "removed"


def _empty(path: pathlib.Path) -> str:
    path.write_bytes(b"")
    return "emptied"


def _folder(path: pathlib.Path) -> str:
    path.unlink()
    path.mkdir()
    return "a directory"


def _loop(path: pathlib.Path) -> str:
    path.unlink()
    path.symlink_to(path.name)
    return "a link to itself"


# Of bytes. Each keeps its name: a report is told by it.


def _place(data: bytes, rng: random.Random) -> int:
    """Heads and tails say more than what is between them."""
    where = rng.random()
    most = len(data)
    return rng.randint(0, most) if where < 0.6 else rng.randint(0, min(64, most)) if where < 0.8 else _end(most, rng)


def _end(most: int, rng: random.Random) -> int:
    return rng.randint(max(0, most - 64), most)


def _bits(data: bytes, context: Context) -> bytes:
    changed = bytearray(data)
    for _ in range(context.rng.choice([1, 1, 3, 20])):
        if changed:
            changed[min(_place(data, context.rng), len(data) - 1)] ^= 1 << context.rng.randrange(8)
    return bytes(changed)


def _bytes(data: bytes, context: Context) -> bytes:
    place = _place(data, context.rng)
    new = bytes(context.rng.choice([0, 1, 127, 128, 255, context.rng.randrange(256)]) for _ in range(4))
    return data[:place] + new + data[place + 4 :]


def _cut(data: bytes, context: Context) -> bytes:
    return data[: _place(data, context.rng)]


def _headless(data: bytes, context: Context) -> bytes:
    return data[_place(data, context.rng) :]


def _range(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = _place(data, rng)
    return start, min(len(data), start + rng.choice([1, 2, 8, 100, 5000]))


def _deleted(data: bytes, context: Context) -> bytes:
    start, end = _range(data, context.rng)
    return data[:start] + data[end:]


def _doubled(data: bytes, context: Context) -> bytes:
    start, end = _range(data, context.rng)
    return data[:end] + data[start:end] * context.rng.choice([1, 1, 50]) + data[end:]


def _zeros(data: bytes, context: Context) -> bytes:
    start, end = _range(data, context.rng)
    return data[:start] + bytes(end - start) + data[end:]


def _spliced(data: bytes, context: Context) -> bytes:
    other = context.rng.choice(context.spare)
    start, end = _range(other, context.rng)
    place = _place(data, context.rng)
    return data[:place] + other[start : end if context.rng.random() < 0.7 else None] + data[place:]


def _appended(data: bytes, context: Context) -> bytes:
    return data + context.rng.choice([data, b"\n", b"\0" * 100, b"{}", b"\xff\xfe"])


def _encoded(data: bytes, context: Context) -> bytes:
    text = data.decode("utf-8", "replace")
    encoding = context.rng.choice(["utf-16", "utf-16-be", "utf-32", "latin-1", "utf-7", "utf-8-sig", "cp500"])
    return text.encode(encoding, "replace")


def _inserted(data: bytes, context: Context) -> bytes:
    place = _place(data, context.rng)
    odd_bytes = [
        b"\0",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r",
        b'"',
        b"\x1a",
        b"\xf4\x90\x80\x80",
    ]
    return data[:place] + context.rng.choice(odd_bytes) + data[place:]


def _texted(data: bytes, context: Context) -> bytes:
    place = _place(data, context.rng)
    return data[:place] + odd.text(context.rng, context.place).encode("utf-8", "surrogatepass") + data[place:]


_WAYS: tuple[Callable[[bytes, Context], bytes], ...] = (
    *(_bits, _bits, _bits, _bytes, _bytes, _cut, _headless, _deleted, _doubled, _zeros),
    *(_spliced, _appended, _encoded, _inserted, _texted),
)
_BY_ENDING: dict[str, Callable[[pathlib.Path, random.Random, str], str]] = {
    ".json": json_mutations.mutate,
    ".jsonl": json_mutations.mutate_lines,
    ".csv": text_mutations.mutate_csv,
    ".txt": text_mutations.mutate_lines,
    ".parquet": parquet_mutations.mutate,
    ".zip": zip_mutations.mutate,
    ".tar": tar_mutations.mutate,
    ".tfrecord": record_mutations.mutate,
}
