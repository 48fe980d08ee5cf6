"""Which shard an image belongs to, what shard files are called, and how records stand in them."""

from __future__ import annotations

import hashlib
import io
import math
import posixpath
import re
import struct
from collections.abc import Container, Iterator
from typing import BinaryIO

import google_crc32c

SPLITS = ("train", "val", "test")
_EDITIONS = "bcdefghijklmnopqrstuvwxyz"
ENDINGS = ("", *(f"-{letter}" for letter in _EDITIONS))  # that free names have
_NAME = re.compile(
    r"(?P<prefix>[^/]+)-(?P<index>\d{5,9})-of-(?P<count>\d{5,9})(?:-(?P<edition>[b-z]))?(?P<suffix>\.\w+)\Z"
)


def shard_name(prefix: str, index: int, count: int, suffix: str = ".tfrecord") -> str:
    """`train-00000-of-00008.tfrecord`, as TensorFlow Datasets names them."""
    return f"{prefix}-{index:05d}-of-{count:05d}{suffix}"


def free_name(name: str, used: Container[str]) -> str:
    """The name, or `train-00000-of-00008-b.tfrecord`, or -c and so on: the first that is not in use."""
    root, suffix = posixpath.splitext(name)
    return next(found for ending in ENDINGS if (found := f"{root}{ending}{suffix}") not in used)


def is_edition(name: str, of: str) -> bool:
    """Whether `free_name(of, …)` may give the name."""
    (root, suffix), (first, same) = posixpath.splitext(name), posixpath.splitext(of)
    return suffix == same and root[:-2] == first and root[-2:-1] == "-" and root[-1:] in _EDITIONS


def is_named(name: str, role: str) -> bool:
    """Whether a file that others name may be the one of this role: by its first name, or as an edition of it."""
    return name == role or is_edition(name, role)


def parse_shard_name(name: str) -> tuple[str, int, int, str] | None:
    """(prefix, index, count, suffix) of a shard's file name; None for any other name."""
    match = _NAME.match(name)
    return match and (match["prefix"], int(match["index"]), int(match["count"]), match["suffix"])


def ending_of(name: str) -> str:
    """Of ENDINGS, the one that `free_name` has given to the name of a shard."""
    match = _NAME.match(name)
    return f"-{match['edition']}" if match and match["edition"] else ""


def with_ending(name: str, ending: str) -> str:
    """The name of the same shard with another one of ENDINGS. Raises ValueError where it is no shard's."""
    parsed = parse_shard_name(name)
    if parsed is None:
        raise ValueError(f"expected the name of a shard, found {name!r}")
    prefix, index, count, suffix = parsed
    return shard_name(prefix, index, count, ending + suffix)


def prefix_of(name: str) -> str:
    """The prefix of a shard's file name. Raises ValueError where it is none."""
    parsed = parse_shard_name(name)
    if parsed is None:
        raise ValueError(f"expected the name of a shard, found {name!r}")
    return parsed[0]


def shard_count(images: int, images_per_shard: int) -> int:
    """How many shards of about `images_per_shard` hold `images`; at least one."""
    return max(1, math.ceil(images / images_per_shard))


def _hash(image_id: str) -> tuple[int, int]:
    """Two numbers of 64 bits: the halves of MD5, in DuckDB `md5_number_upper` and `md5_number_lower`."""
    digest = hashlib.md5(image_id.encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def shard_of(image_id: str, count: int) -> int:
    """The shard of an image: the same on every machine and run, whatever the other images are."""
    return _hash(image_id)[0] % count


def order_in_shard(image_id: str) -> tuple[int, str]:
    """Sort key inside a shard: also a hash, so that records are shuffled; other bits than the shard's."""
    return _hash(image_id)[1], image_id


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_framed(handle: BinaryIO | io.RawIOBase, record: bytes) -> int:
    """Appends one record in TFRecord framing; returns the bytes written.

    The frame is length (uint64), masked CRC-32C of the length, data, masked CRC-32C of the data, all little-endian:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details. Written here because TensorFlow's
    writer opens paths, and shards go through Beam's file handles.
    """
    length = struct.pack("<Q", len(record))
    frame = length + _masked_crc(length) + record + _masked_crc(record)
    handle.write(frame)
    return len(frame)


def read_framed(handle: BinaryIO) -> Iterator[bytes]:
    """The records that `write_framed` wrote, checked.

    Raises:
      ValueError: the file is cut short or damaged; tells which record.
    """
    for number, record in enumerate(read_frames(handle)):
        if record is None:
            raise ValueError(f"record {number}: its data do not match their checksum")
        yield record


def read_frames(handle: BinaryIO) -> Iterator[bytes | None]:
    """As `read_framed`, with None for a record whose data are damaged, and going on behind it.

    Raises:
      ValueError: the file is cut short, or a length is damaged, so that nothing tells where the next record begins.
    """
    number = 0
    while head := handle.read(12):
        if len(head) < 12 or head[8:] != _masked_crc(head[:8]):
            raise ValueError(f"record {number}: its length is damaged or cut short")
        (length,) = struct.unpack("<Q", head[:8])
        record, crc = handle.read(length), handle.read(4)
        if len(record) < length or len(crc) < 4:
            raise ValueError(f"record {number}: its data are cut short")
        yield record if crc == _masked_crc(record) else None
        number += 1


def is_validation(image_id: str, fraction: float) -> bool:
    """Whether an image is among the `fraction` held out: by its id alone, whatever the other images are."""
    digest = hashlib.blake2b(image_id.encode("utf-8", "surrogateescape"), digest_size=8, person=b"validation").digest()
    return int.from_bytes(digest, "big") < fraction * 2**64
