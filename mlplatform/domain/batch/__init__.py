"""Batch pipelines: what their YAML says, what it compiles to, and the mathematics of their steps."""
