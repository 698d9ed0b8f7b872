"""A client of the control plane: jobs, pipelines, schedules, workers and webhooks over its HTTP interface."""

from mlplatform.client.client import Client
from mlplatform.client.errors import ApiError, ApiUnreachable
from mlplatform.client.tokens import Tokens, TokenStore

__all__ = ["ApiError", "ApiUnreachable", "Client", "TokenStore", "Tokens"]
