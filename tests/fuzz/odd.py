"""Values that nobody expects, in place of those that a file has."""

from __future__ import annotations

import json
import random
from typing import Any

PRECIOUS = "precious.txt"  # lies above and beside what is read; whatever reads or writes it went astray
DEEP = 100_000
_DIGITS = "9" * 5000

TEXTS = (
    "",
    " ",
    "\0",
    "a\nb",
    "a\rb\tc",
    "\x1b[31mred\x1b[0m",
    "\u202egpj.exe",
    "\ufffe",
    "e\u0301" * 3,
    "x" * 300,
    "y" * 70_000,
    "z" * 1_000_000,
    ".",
    "..",
    "/",
    f"../{PRECIOUS}",
    f"../../{PRECIOUS}",
    f"a/../../{PRECIOUS}",
    f"..\\{PRECIOUS}",
    f"{{place}}/{PRECIOUS}",
    "/dev/zero",
    "/proc/self/mem",
    "nowhere://bucket/name",
    "file:///etc/hostname",
    "*",
    "[",
    "**/*.jpg",
    "-",
    "--output",
    "%s%n",
    "'; DROP TABLE entries; --",
    "<script>alert(1)</script>",
    "=1+1",
    "a.zip!/b.jpg",
    "a.parquet!/image/7",
    "-1",
    "1e400",
    "NaN",
    "0x10",
    "١٢٣",
    _DIGITS,
    "null",
    "2038-01-19T03:14:08",
)
NUMBERS = (
    *(-1, 0, 1, 2, 2**31 - 1, 2**31, -(2**31) - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30),
    *(0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": None}, [None] * 3, {"a": {"b": [1, "2"]}})
# What Python's json cannot write.
RAW = (
    _DIGITS,
    f"-{_DIGITS}",
    f"1e{_DIGITS}",
    "1e400",
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    "[" * 1000 + "]" * 1000,
    "tru",
    "'single'",
    "[1,]",
    "01",
    "",
)


def text(rng: random.Random, place: str) -> str:
    """One of TEXTS; `place` is an absolute path of what must stay as it is."""
    return rng.choice(TEXTS).replace("{place}", place)


def number(rng: random.Random) -> int | float:
    """One of NUMBERS, or one of any size."""
    return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.randint(-(2 ** rng.randint(1, 200)), 2**64)


def value(rng: random.Random, place: str) -> Any:
    """Of any type that JSON has."""
    kind = rng.randrange(3)
    return text(rng, place) if kind == 0 else number(rng) if kind == 1 else rng.choice(OTHERS)


def raw(rng: random.Random, place: str) -> str:
    """The same as JSON; sometimes what Python cannot write, or what is none."""
    return rng.choice(RAW) if rng.random() < 0.3 else json.dumps(value(rng, place))
