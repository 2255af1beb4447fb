"""What both planes ask of the machine: locks, owners of files, its own addresses. Beside `http` the only room with I/O."""
