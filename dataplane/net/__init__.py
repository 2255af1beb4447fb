"""Sockets: everything that touches a client or backend byte."""

from dataplane.build import folders

__path__[:0] = folders(__name__)
