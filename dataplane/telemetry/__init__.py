"""What a data plane tells about itself while it runs: log, events, access log, spans."""
