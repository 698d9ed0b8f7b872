"""Online learning, batch ML and training jobs as one Dagster asset graph."""
