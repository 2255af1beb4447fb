"""Reading YAML and JSON strictly: values, where each part stands, and what is wrong with it; no I/O."""
