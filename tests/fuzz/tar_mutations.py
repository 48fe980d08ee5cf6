"""Changes of a tar file: its members, and fields of its headers, with checksums that are right again."""

from __future__ import annotations

import pathlib
import random
import tarfile

from tests.fuzz import odd
from tests.support import tar_files

_FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
# (offset, length) of the fields of a header: name, mode, size, time, checksum, type, link, magic, prefix.
_FIELDS = ((0, 100), (100, 8), (124, 12), (136, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155))
_SIZES = (
    *(b"00000000000\0", b"77777777777\0", b"-0000000001\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b" " * 12, bytes(12)),
    *(b"\x80" + bytes(6) + b"\x02" + bytes(4), b"00000001000\0", b"00000000777 ", b"0x000000010\0"),
)
_FLAGS = b"01234567LKxgSDMNVXA\0z"


def mutate(path: pathlib.Path, rng: random.Random, place: str) -> str:
    """Changes a tar file."""
    told, data = (_written_anew if rng.random() < 0.4 else _patched)(path, rng, place)
    path.write_bytes(data)
    return told


def _written_anew(path: pathlib.Path, rng: random.Random, place: str) -> tuple[str, bytes]:
    """Other names and contents, in another form."""
    with tarfile.open(path) as archive:
        members = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    number = rng.randrange(len(members))
    name, content = members[number]
    kind = rng.choice(["name", "name", "twice", "empty", "large", "nested", "gone", "deep", "json", "moved"])
    stem = name.partition(".")[0]
    if kind == "name":
        members[number] = (odd.text(rng, place)[:60_000] or "x", content)
    elif kind == "twice":
        members.insert(rng.randrange(len(members)), (name, rng.choice(members)[1]))
    elif kind == "empty":
        members[number] = (name, b"")
    elif kind == "large":
        members[number] = (name, content[:100] + bytes(50_000_000))
    elif kind == "nested":
        members[number] = (f"{stem}.tar", path.read_bytes())
    elif kind == "gone":
        del members[number]
    elif kind == "deep":
        members.insert(number, (f"{stem}.json", b'{"a":' * 100_000))
    elif kind == "json":
        members.insert(number, (f"{stem}.json", odd.text(rng, place).encode("utf-8", "surrogatepass")))
    else:
        members.insert(rng.randrange(len(members)), members.pop(number))
    form = rng.choice(_FORMS)
    tar_files.write(path, members, form)
    return f"{kind} of member {number}, form {form}", path.read_bytes()


def _patched(path: pathlib.Path, rng: random.Random, place: str) -> tuple[str, bytes]:
    """Fields of headers are others; what is put in front of a header, or cut off."""
    changed = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        places = [info.offset for info in archive]
    told = []
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.choice(places)
        offset, length = rng.choice(_FIELDS)
        value = rng.choice(
            [rng.randbytes(length), bytes(length), b"\xff" * length, odd.text(rng, place).encode("utf-8", "ignore")]
        )
        if offset == 124:
            value = rng.choice(_SIZES)
        elif offset == 156:
            value = bytes([rng.choice(_FLAGS)])
        changed[at + offset : at + offset + length] = value[:length].ljust(length, b"\0")
        if rng.random() < 0.85:
            changed[at : at + 512] = tar_files.mended(changed[at : at + 512])
        told.append(f"header {at} field {offset}")
    if rng.random() < 0.3:
        at, claimed = rng.choice(places), rng.choice([10, 900, 70_000, 5 << 30])
        flag = rng.choice([b"x", b"g", b"L", b"K"])
        records = rng.choice(
            [b"18 path=other.jpg\n", b"11 size=-1\n", b"22 GNU.sparse.major=1\n", b"99 path=a\n", b"x" * 900]
        )
        changed[at:at] = tar_files.header(b"pax", rng.choice([len(records), claimed]), flag) + tar_files.padded(records)
        told.append(f"a header {flag!r} before {at}")
    return ", ".join(told), bytes(changed)
