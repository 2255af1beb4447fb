"""Wiring: snapshots in, running state out, and the API over it."""
