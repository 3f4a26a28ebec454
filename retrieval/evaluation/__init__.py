"""Measures models and prompts on collections that people describe; see ``evaluation.evaluate``."""
