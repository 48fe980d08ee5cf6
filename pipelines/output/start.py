"""How a run starts: its images are listed once, then its output is made ready, and the listing written below it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipelines.listing.catalogue import Catalogue, Source, open_catalogue
from pipelines.listing.table import Listing
from pipelines.output import lifecycle
from pipelines.output.names import Names
from pipelines.output.progress import LISTING, waiting
from pipelines.output.publishing import Publication
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import carried, files


@contextlib.contextmanager
def listed(source: Source) -> Iterator[Catalogue]:
    """A context with the catalogue of all images of a source. Raises InputError."""
    with open_catalogue(source.metadata_fields()) as catalogue:
        with waiting(LISTING):
            source.list_into(catalogue)
        yield catalogue


@contextlib.contextmanager
def begin(
    catalogue: Catalogue,
    directory: str,
    options: lifecycle.Options,
    names: Names,
    images_per_shard: int,
    started: float,
    overwrite: bool,
    update: bool | None = None,
) -> Iterator[tuple[Listing, Publication]]:
    """What workers are to read, and what the last step is to publish; the output is locked while this is entered.

    See `lifecycle.begin` for arguments and errors.
    """
    with lifecycle.begin(directory, options, names, overwrite, update) as present:
        counts = catalogue.counts()
        listing = Listing(directory, present.shard_counts(counts, images_per_shard), tuple(catalogue.metadata))
        with waiting(LISTING):
            listing.write(catalogue, present.names(listing.shards, names.suffixes[0]))
        free = present.free(names.roles())
        yield listing, Publication(directory, options.every, counts, started, names, present.current, free)


def carry(source: str, digest: str, directory: str) -> str:
    """Puts local weights into an output that is locked, where workers and later commands find them; returns their name.

    They may have it before all else is complete: it is made of their digest, and no other weights ever have it.
    """
    name = carried.name_of(source, digest)
    try:
        carried.put(source, directory, name)
    except OSError as error:
        told = files.reason(error)
        raise InputError(f"--output: expected a directory that can be written to, found {directory}: {told}") from None
    return name
