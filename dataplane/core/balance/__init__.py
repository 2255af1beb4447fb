"""Choosing a backend: one module per mode, and one table of them (`modes`)."""

from dataplane.build import folders

__path__[:0] = folders(__name__)
