"""Decisions without I/O: balancing, health, pools, admission, the PROXY codec."""
