"""Where backends come from when lb.yaml does not list them."""
