"""What a source lists, as the launcher lists it."""

from pipelines.items import Item
from pipelines.listing.catalogue import Source, open_catalogue


def listed(source: Source) -> list[Item]:
    """All images in the order of the source."""
    with open_catalogue(source.metadata_fields()) as catalogue:
        source.list_into(catalogue)
        return catalogue.sample(max(1, sum(catalogue.counts().values())))


def counted(source: Source) -> dict[str, int]:
    """How many images each split has."""
    with open_catalogue(source.metadata_fields()) as catalogue:
        source.list_into(catalogue)
        return catalogue.counts()
