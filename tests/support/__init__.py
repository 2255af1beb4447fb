"""What tests share: servers, a fault proxy, a clock, a data plane, load and real programs."""
