"""The process that has workers: starts and replaces them, and changes all of them together."""
