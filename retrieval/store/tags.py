"""Rows of tags: words that stand for what an item is, and who said so. They go with their item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, TextClause, func, insert, select, text
from sqlalchemy.sql import Select

from retrieval.store.records import Tag
from retrieval.store.schema import items, tags
from retrieval.store.writing import MAX_VARIABLES


def counts() -> TextClause:
    """Asks for every tag with the number of its items, by name."""
    return text("SELECT min(tag), count(DISTINCT item_id) FROM tags GROUP BY tag ORDER BY min(tag)")


def of_item(item_id: int) -> Select[Any]:
    """Asks for the tags of an item, by name."""
    return (
        select(tags.c.tag, tags.c.source, tags.c.probability)
        .where(tags.c.item_id == item_id)
        .order_by(tags.c.tag, tags.c.source)
    )


def put(connection: Connection, source: str, given: Mapping[int, Sequence[Tag]]) -> int:
    """Stores the tags that a source gives to items, in place of those that it gave before.

    Args:
        connection: In a transaction.
        source: Who says so; what others said stays.
        given: By item id; no tags take the old ones away. Ids that are not there are left out.

    Returns:
        How many tags were stored.
    """
    ids = list(given)
    there: set[int] = set()
    for start in range(0, len(ids), MAX_VARIABLES):
        some = ids[start : start + MAX_VARIABLES]
        there.update(connection.execute(select(items.c.id).where(items.c.id.in_(some))).scalars())
        connection.execute(tags.delete().where(tags.c.source == source, tags.c.item_id.in_(some)))
    rows = [
        {"item_id": item, "tag": tag.name, "source": source, "probability": tag.probability}
        for item in ids
        if item in there
        for tag in given[item]
    ]
    if rows:
        connection.execute(insert(tags), rows)
    return len(rows)


def remove(connection: Connection, name: str) -> int:
    """Takes a tag, in upper or lower case, from all items; gives how many it was taken from."""
    ((count,),) = connection.execute(
        select(func.count(tags.c.item_id.distinct())).where(tags.c.tag == name)
    )
    connection.execute(tags.delete().where(tags.c.tag == name))
    return int(count)
