"""Choosing a backend: one module per mode, and one table of them (`modes`)."""
