"""lb-control: desired state in, snapshots to the data planes out."""
