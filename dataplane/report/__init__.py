"""What status and metrics show: the numbers of one process or of all workers."""
