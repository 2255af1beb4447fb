"""The data plane: accepts clients and relays them to live backends."""
