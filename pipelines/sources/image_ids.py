"""Ids out of names: a name without its ending, but for names that only endings tell apart."""

from __future__ import annotations

from pipelines.listing.catalogue import Catalogue

# As posixpath.splitext: without what follows the last dot of the last name, unless there are only dots before it.
_STEM = r"""
    CASE WHEN (starts_with(name, '.') OR contains(name, '/.')) AND regexp_matches(name, '(^|/)\.+[^./]*$') THEN name
    ELSE regexp_replace(name, '\.[^./]*$', '') END
"""


def learn_names(catalogue: Catalogue, names: str) -> None:
    """Makes a macro `id_of(name)`, an id that no other of these names has: `folder/cat` of `folder/cat.jpg`.

    Names that are the same without their endings keep them, `cat.jpg` beside `cat.png`; and so does one that would
    get the id of another of these, `cat.jpg.png`. The order of the names does not matter.

    Args:
      names: a query of one column.
    """
    catalogue.run(f"CREATE OR REPLACE MACRO stem(name) AS {_STEM}")
    # Only hashes are grouped: there may be a hundred million names.
    catalogue.run(
        f"""
        CREATE OR REPLACE TABLE shared AS
        WITH RECURSIVE names(name) AS ({names}),
        pairs AS (SELECT name, stem(name) AS stem FROM names),
        alike AS (
            SELECT hash(stem) AS stem FROM pairs GROUP BY hash(stem) HAVING min(hash(name)) <> max(hash(name))
        ),
        longer AS (
            SELECT DISTINCT hash(stem) AS name FROM pairs
            WHERE contains(stem, '.') AND stem <> name AND stem(stem) <> stem
        ),
        shorter AS (
            SELECT DISTINCT hash(name) AS name, hash(stem) AS stem
            FROM pairs WHERE hash(name) IN (SELECT name FROM longer) AND stem <> name
        ),
        found AS (
            SELECT stem FROM alike
            UNION SELECT shorter.name FROM shorter JOIN found USING (stem)
        )
        SELECT stem FROM found
        """
    )
    catalogue.run(
        "CREATE OR REPLACE MACRO id_of(name) AS "
        "CASE WHEN hash(stem(name)) IN (SELECT stem FROM shared) THEN name ELSE stem(name) END"
    )
