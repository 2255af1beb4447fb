"""lb-control: what people and scripts type."""

from controlplane.cli.entry import main

__all__ = ["main"]
