"""The tags by which a run of Dagster's and a job of the control plane know each other."""

from collections.abc import Mapping

JOB_TAG = "mlplatform/job_id"
ROUND_TAG = "mlplatform/round"
PIPELINE_TAG = "mlplatform/pipeline_id"
TRACE_TAG = "mlplatform/traceparent"


def round_of(tags: Mapping[str, str]) -> int:
    """The round of its job that a run is for. One that Dagster made by itself says none: the first."""
    given = tags.get(ROUND_TAG, "")
    return int(given) if given.isdecimal() else 1
