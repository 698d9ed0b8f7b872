"""Reads the YAML of batch pipelines and profiles, says what is wrong with it, and compiles it."""
