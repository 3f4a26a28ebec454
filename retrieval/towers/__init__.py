"""The ways into a space, one file per family of models."""
