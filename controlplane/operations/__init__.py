"""What operators can do, with a daemon and without: one controller, one set of rules."""
