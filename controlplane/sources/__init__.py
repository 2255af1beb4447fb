"""Where desired state and backends come from: files and Consul."""
