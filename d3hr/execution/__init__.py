"""Where pieces of work are done: in this process, in worker processes, on a Ray cluster."""
