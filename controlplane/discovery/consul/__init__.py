"""Consul: services' queries in, their last known good backends out."""
