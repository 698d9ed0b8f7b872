"""Batch pipelines as assets: one op for each step, its artefacts being the assets."""
