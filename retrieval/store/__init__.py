"""The index file. SQLite is the truth; every other file can be rebuilt from it."""

from retrieval.store.records import (
    Batch,
    Concept,
    Found,
    ItemRecord,
    Known,
    Relocation,
    Seal,
    Space,
    Summary,
    Twin,
)
from retrieval.store.store import Store

__all__ = [
    "Batch",
    "Concept",
    "Found",
    "ItemRecord",
    "Known",
    "Relocation",
    "Seal",
    "Space",
    "Store",
    "Summary",
    "Twin",
]
