"""Certificates and keys: read from files, taken when they are renewed, and made into contexts for the connection path."""
