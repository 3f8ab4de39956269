"""Where tasks run: in this process, in worker processes on this machine, or on a Ray cluster."""
