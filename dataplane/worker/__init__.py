"""One of several processes that relay: counts are shared, checks and sockets are the supervisor's."""
