"""The fault harness: kills a process at a named write, or at any moment, and compares what comes of it."""
