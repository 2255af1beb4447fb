"""The running state of one process: services, listeners and health, and how a snapshot changes them."""
