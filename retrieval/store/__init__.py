"""The index file. SQLite is the truth; every other file can be rebuilt from it."""

from retrieval.store.records import (
    NO_DETAILS,
    Batch,
    Captions,
    Concept,
    Details,
    Entry,
    Extent,
    Found,
    ItemRecord,
    Known,
    Relocation,
    Seal,
    Sourced,
    Space,
    Summary,
    Tag,
    Twin,
)
from retrieval.store.store import Store

__all__ = [
    "NO_DETAILS",
    "Batch",
    "Captions",
    "Concept",
    "Details",
    "Entry",
    "Extent",
    "Found",
    "ItemRecord",
    "Known",
    "Relocation",
    "Seal",
    "Sourced",
    "Space",
    "Store",
    "Summary",
    "Tag",
    "Twin",
]
