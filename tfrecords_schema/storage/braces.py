"""Braces in places, as shells and WebDataset have them: `{00000..00099}` and `{train,val}` stand for several paths.

A pattern finds what is there. Braces say what must be there: a shard that is missing is noticed.
"""

from __future__ import annotations

import os
import re

from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files, finding, paths

_MOST = 1_000_000  # paths
_LISTED = 8  # more remote files than these are not asked for one by one
_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def expand(place: str) -> list[str]:
    """The paths that a place stands for, in their order: itself, where it has no braces or is a file of that name.

    The width of a range's numbers is that of the longer one with a leading zero, as in bash. Raises InputError.
    """
    if not any(_is_meant(found[1]) for found in _INNERMOST.finditer(place)) or _is_there(place):
        return [place]
    return list(dict.fromkeys(_expanded(place, place)))


def _is_there(place: str) -> bool:
    return os.path.lexists(place) if paths.is_local(place) else not paths.is_web(place) and files.exists(place)


def _is_meant(content: str) -> bool:
    return "," in content or bool(_RANGE.fullmatch(content))


def _expanded(place: str, given: str) -> list[str]:
    last = next((found for found in reversed([*_INNERMOST.finditer(place)]) if _is_meant(found[1])), None)
    if last is None:
        return [place]
    numbers = _RANGE.fullmatch(last[1])
    values = _numbers(numbers[1], numbers[2], given) if numbers else last[1].split(",")
    # What stands before this one is expanded once, and not for each of its values.
    before = _expanded(place[: last.start()], given)
    if len(before) * len(values) > _MOST:
        raise _too_many(given)
    return [f"{one}{value}{rest}" for one in before for value in values for rest in [place[last.end() :]]]


def _numbers(first: str, last: str, given: str) -> list[str]:
    start, stop = int(first), int(last)
    if abs(stop - start) >= _MOST:
        raise _too_many(given)
    width = max((len(text) for text in (first, last) if text.startswith("0")), default=0)
    step = 1 if stop >= start else -1
    return [f"{number:0{width}d}" for number in range(start, stop + step, step)]


def _too_many(given: str) -> InputError:
    return InputError(f"expected braces that stand for at most {_MOST:,} paths, found more in {given!r}")


def glob_versions(place: str) -> list[tuple[str, str]]:
    """(path, version) of the files that a place means: braces, a pattern, or a name, as `finding.glob_versions`.

    Raises:
      InputError: for one path that braces stand for there is no file; it is named.
    """
    expanded = expand(place)
    if len(expanded) == 1:
        return finding.glob_versions(expanded[0])
    known: dict[str, list[tuple[str, str]]] = {}
    if paths.is_remote(place) and len(expanded) > _LISTED and not paths.is_pattern(place):
        wanted = set(expanded)
        first = next(found.start() for found in _INNERMOST.finditer(place) if _is_meant(found[1]))
        for batch in finding.batches(place[:first]):
            known.update({path: [(path, f"{size}:{mark}")] for path, size, mark in batch if path in wanted})
    else:
        known = {one: finding.glob_versions(one) for one in expanded}
    missing = [one for one in expanded if not known.get(one)]
    if missing:
        more = f" and at {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise InputError(
            f"expected a file at each of the {len(expanded):,} paths that {place!r} stands for, found none at "
            f"{missing[0]!r}{more}; give only those that exist"
        )
    return [found for one in expanded for found in known[one]]
