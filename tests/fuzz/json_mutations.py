"""Changes of what JSON says: other types, numbers, names, depth, keys that are missing or there twice."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

from tests.fuzz import odd

_MARK = "\u2603raw\u2603"  # stands for text that Python's json cannot write


def mutate(path: pathlib.Path, rng: random.Random, place: str) -> str:
    """Changes one to three values of a JSON file."""
    written, told = changed(path.read_text(), rng, place)
    path.write_text(written, errors="surrogatepass")
    return told


def mutate_lines(path: pathlib.Path, rng: random.Random, place: str) -> str:
    """Changes a line of JSON, or lines as such."""
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    told = rng.choice(["value", "value", "value", "doubled", "blank", "joined", "broken"])
    if told == "value":
        lines[number], told = changed(lines[number], rng, place)
    elif told == "doubled":
        lines.insert(number, lines[number])
    elif told == "blank":
        lines.insert(number, rng.choice(["", "  ", "null", "[]", "{}", '"image"', "\ufeff"]))
    elif told == "joined":
        lines[number] += lines[number]
    else:
        lines[number] = lines[number][: rng.randrange(len(lines[number]) + 1)]
    path.write_text("\n".join(lines) + "\n", errors="surrogatepass")
    return f"line {number}: {told}"


def changed(text: str, rng: random.Random, place: str) -> tuple[str, str]:
    """(JSON with one to three values changed, how)."""
    root = [json.loads(text)]
    raws: list[str] = []
    told = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        told.append(_change(root, rng, place, raws))
    written = json.dumps(root[0], indent=rng.choice([None, 2]), ensure_ascii=rng.random() < 0.5)
    for number, raw in enumerate(raws):
        written = written.replace(f'"{_MARK}{number}"', raw)
    return written, ", ".join(told)


def _change(root: list[Any], rng: random.Random, place: str, raws: list[str]) -> str:
    holder, key = _somewhere(root, rng)
    kind = rng.choice(["value", "value", "value", "raw", "missing", "key", "twice", "nested", "moved"])
    if kind == "value":
        holder[key] = odd.value(rng, place)
    elif kind == "raw":
        raws.append(odd.raw(rng, place))
        holder[key] = f"{_MARK}{len(raws) - 1}"
    elif kind == "missing":
        del holder[key]
        if not root:
            root.append(None)
    elif kind == "nested":
        holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
    elif kind == "moved":
        other, at = _somewhere(root, rng)
        holder[key] = json.loads(json.dumps(other[at]))
    elif isinstance(holder, dict) and kind == "key":
        holder[odd.text(rng, place)] = holder[key]
    elif isinstance(holder, dict):  # the same key again: json would keep the last one alone
        raws.append(f"{json.dumps(holder[key])}, {json.dumps(key)}: {odd.raw(rng, place)}")
        holder[key] = f"{_MARK}{len(raws) - 1}"
    else:
        holder.insert(key, holder[key])
    return f"{kind} at {str(key)[:20]!r}"


def _somewhere(root: list[Any], rng: random.Random) -> tuple[Any, Any]:
    """(the list or object that holds a value, its place there), at any depth."""
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], (dict, list)) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    return holder, key
