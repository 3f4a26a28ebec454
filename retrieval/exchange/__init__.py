"""Embeddings move in and out of an index, and indexes into each other."""
