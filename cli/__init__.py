"""The ``anyseek`` command: the only package that prints or exits."""

import os

# Work is spread over the cores by tasks, see indexer.pipeline. Threads inside each matrix product
# would only compete with them: with two to a product, indexing texts takes twice the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
