"""Telling the network whether this node may have clients."""
