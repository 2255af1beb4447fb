"""What the planes say to each other and to people: documents, checked and brought into one form; no I/O."""
