"""How both planes serve HTTP: the only room of schemas with I/O."""
