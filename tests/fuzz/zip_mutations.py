"""Changes of a zip file: names of its members, and what its directory and the headers before each member say."""

from __future__ import annotations

import io
import pathlib
import random
import struct
import zipfile

from tests.fuzz import odd

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_CENTRAL, _LOCAL, _END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
# (offset, format) of the numbers in a record: versions, flags, method, time, CRC, sizes, lengths, offset.
_FIELDS = {
    _CENTRAL: [(o, "<H") for o in (4, 6, 8, 10, 12, 28, 30, 32, 34)] + [(o, "<I") for o in (16, 20, 24, 38, 42)],
    _LOCAL: [(o, "<H") for o in (4, 6, 8, 26, 28)] + [(o, "<I") for o in (14, 18, 22)],
    _END: [(o, "<H") for o in (4, 6, 8, 10, 20)] + [(o, "<I") for o in (12, 16)],
}


def mutate(path: pathlib.Path, rng: random.Random, place: str) -> str:
    """Changes a zip file."""
    if rng.random() < 0.4:
        told, data = _written_anew(path, rng, place)
    else:
        told, data = _numbered(path.read_bytes(), rng)
    path.write_bytes(data)
    return told


def _written_anew(path: pathlib.Path, rng: random.Random, place: str) -> tuple[str, bytes]:
    """Other names, methods and contents."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    number = rng.randrange(len(members))
    name, content = members[number]
    kind = rng.choice(["name", "name", "twice", "empty", "large", "nested", "comment"])
    if kind == "name":
        members[number] = (odd.text(rng, place)[:60_000] or "x", content)
        members[number] = (members[number][0] + rng.choice(["", ".jpg"]), content)
    elif kind == "twice":
        members.append((name, rng.choice(members)[1]))
    elif kind == "empty":
        members[number] = (name, b"")
    elif kind == "large":
        members[number] = (name, content[:100] + bytes(50_000_000))
    elif kind == "nested":
        members[number] = (f"{name}.zip", path.read_bytes())
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", rng.choice(_METHODS)) as archive:
        for member, data in members:
            archive.writestr(member, data)
        if kind == "comment":
            archive.comment = b"PK\x05\x06" * 5000
    return f"{kind} of member {number}", held.getvalue()


def _numbered(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Numbers of the directory's records, or of a member's header, are others."""
    changed = bytearray(data)
    mark = rng.choice(list(_FIELDS))
    places = [at for at in range(len(data)) if data.startswith(mark, at)]
    told = []
    for _ in range(rng.choice([1, 1, 2])):
        at, (offset, kind) = rng.choice(places), rng.choice(_FIELDS[mark])
        most = (1 << 8 * struct.calcsize(kind)) - 1
        if at + offset + struct.calcsize(kind) <= len(data):
            number = rng.choice([0, 1, 8, 9, 12, 14, 99, most, most - 1, most // 2, rng.randint(0, most)])
            struct.pack_into(kind, changed, at + offset, number)
            told.append(f"{mark!r} {offset} is {number}")
    return ", ".join(told), bytes(changed)
