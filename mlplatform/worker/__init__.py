"""A worker: takes executions from its queue, runs their commands, and tells how they ended."""
