"""The pipelines of this project in Dagit: `dagster dev -f definitions.py`."""

from pathlib import Path

from mlplatform.components.batch.component import project_definitions

defs = project_definitions(Path(__file__).parent)
