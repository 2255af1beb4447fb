"""PROXY protocol, versions 1 and 2: a codec for the header that carries a client's addresses, one module for each version."""
