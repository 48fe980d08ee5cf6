"""What is kept of an earlier shard and what is computed anew, put back into one order."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import TypeVar

from pipelines.items import Item, Reject

_Value = TypeVar("_Value")


class EarlierShardError(Exception):
    """An earlier shard, of which something was to be kept, cannot be read: all of it is to be computed again."""


def in_order(
    items: list[Item],
    kept: Container[int],
    outcomes: Iterable[Reject | list[tuple[Item, _Value]]],
    size: int,
) -> Iterator[Reject | list[tuple[Item, _Value | None]]]:
    """Yields all items in their order, at most `size` together, with what was computed of them, or None for those kept.

    Args:
      kept: the positions of those kept.
      outcomes: of all others, in their order; rejects as they come.
    """
    ready: dict[int, tuple[Item, _Value | None]] = {}
    rejected: set[tuple[str, str]] = set()
    remaining = iter(items)
    following = next(remaining, None)

    def due() -> Iterator[list[tuple[Item, _Value | None]]]:
        nonlocal following
        found: list[tuple[Item, _Value | None]] = []
        while following is not None:
            if following.position in kept:
                found.append((following, None))
            elif following.position in ready:
                found.append(ready.pop(following.position))
            elif (following.id, following.uri) not in rejected:
                break
            following = next(remaining, None)
            if len(found) == size:
                yield found
                found = []
        if found:
            yield found

    yield from due()
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            rejected.add((outcome.image_id, outcome.image_uri))
            yield outcome
        else:
            ready.update((item.position, (item, value)) for item, value in outcome)
        yield from due()
