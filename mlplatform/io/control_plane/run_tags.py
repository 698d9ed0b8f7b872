"""The tags by which a run of Dagster's and a job of the control plane know each other."""

JOB_TAG = "mlplatform/job_id"
PIPELINE_TAG = "mlplatform/pipeline_id"
TRACE_TAG = "mlplatform/traceparent"
