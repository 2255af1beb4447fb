"""Decisions without I/O: balancing, health, pools, admission, the PROXY codec."""

from dataplane.build import folders

__path__[:0] = folders(__name__)
