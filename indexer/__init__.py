"""Keeps an index in step with folders: finds what changed, decodes, embeds, stores."""
