"""What the control plane decides, without I/O: time and randomness are arguments."""
