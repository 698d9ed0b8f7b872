"""The control plane over HTTP: jobs, pipelines, schedules, workers, and who may touch them."""
