"""Pipelines, commands and schedules of the control plane as Dagster shows and runs them."""
