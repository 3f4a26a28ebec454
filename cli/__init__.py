"""The ``anyseek`` command: the only package that prints or exits."""
