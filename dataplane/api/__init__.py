"""The data plane's HTTP API: routes, sockets, and who may call."""
