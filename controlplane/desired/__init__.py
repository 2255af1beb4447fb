"""The desired state: where an lb.yaml lives, and how it is read."""
