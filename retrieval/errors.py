"""Every error that anyseek raises on purpose.

::

    AnyseekError                what is wrong and what to do next, in one line
    ├── QueryError              a query, a number of hits or a filter that means nothing
    ├── ModelError              a model that is unknown, incomplete or not installed
    │   └── ModelMissingError   its weights are not on this machine yet
    ├── EvaluationError         data to measure on that mean nothing
    ├── MediaError              one file that cannot be used; the indexer lists it and goes on
    ├── ExchangeError           embeddings that cannot come in, go out or be joined as they are
    └── StoreError              the index as a whole
        ├── IndexMissingError   there is no index at that place yet
        ├── NotAnIndexError     the file there is not an anyseek index
        ├── NewerIndexError     the index was written by a newer anyseek
        ├── IndexBusyError      another process holds the index for too long
        └── StorageError        the disk is full, read-only or failing

The command line turns each of them into its message and exit code 1, at one place
(``cli.app.main``). Anything else that escapes is a bug.
"""


class AnyseekError(Exception):
    """What is wrong and what to do next, in one line a person can act on."""


class QueryError(AnyseekError):
    """A query, a number of hits or a filter that means nothing."""


class ModelError(AnyseekError):
    """A model that is unknown, incomplete or whose library is not installed."""


class ModelMissingError(ModelError):
    """The model is known, but its weights are not on this machine yet."""


class EvaluationError(AnyseekError):
    """Data to measure a model on that are malformed, incomplete or too few."""


class MediaError(AnyseekError):
    """One file that cannot be used. The message is the reason, without the path."""


class ExchangeError(AnyseekError):
    """Embeddings that cannot come in, go out or be joined as they are; a row is named."""


class StoreError(AnyseekError):
    """Something about the index as a whole."""


class IndexMissingError(StoreError):
    """There is no index at that place yet."""


class NotAnIndexError(StoreError):
    """The file at that place is not an anyseek index."""


class NewerIndexError(StoreError):
    """The index was written by a newer anyseek than this one."""


class IndexBusyError(StoreError):
    """Another process holds the index for too long."""


class StorageError(StoreError):
    """The disk is full, read-only or failing; what was committed before is kept."""
