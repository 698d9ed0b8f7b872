"""Imported once by the server that forks the children, so that none of them waits for imports."""

import deltalake  # noqa: F401
import numba  # noqa: F401
import obstore.store  # noqa: F401
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
import redis  # noqa: F401
from river import drift, ensemble, linear_model, neighbors  # noqa: F401

import mlplatform.domain.kernels  # noqa: F401
import mlplatform_tests.graphs  # noqa: F401
