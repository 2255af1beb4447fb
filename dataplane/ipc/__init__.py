"""How the processes of one data plane, and a process and its successor, speak to each other."""
