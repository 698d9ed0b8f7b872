"""YAML types that build assets; `dg list components` shows them."""

from mlplatform.components.batch.component import BatchPipelines
from mlplatform.components.online_learning.component import OnlineLearning

__all__ = ["BatchPipelines", "OnlineLearning"]
