"""Spaces, prompts, storage and ranking: everything that finds, nothing that prints.

Importing this package is cheap and loads no model library; import the submodule you need:
``retrieval.store``, ``retrieval.search``, ``retrieval.models``, ``retrieval.media``.
"""
