"""Sockets: everything that touches a client or backend byte."""
