"""MLflow's server in one process, which dies with the supervisor.

`mlflow server` starts this same application as its child: the kernel ends the parent together with the
supervisor, and the child would live on and keep the port. Run as `python -m mlplatform.local.mlflow_server`,
with what `mlflow server` hands to its child in the environment.
"""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--backend-store-uri", required=True)
    options = parser.parse_args()

    import uvicorn

    bring_schema_up_to_date(options.backend_store_uri)
    uvicorn.run(
        "mlflow.server.fastapi_app:app",
        host="127.0.0.1",
        port=options.port,
        access_log=False,
        timeout_graceful_shutdown=3,
    )


def bring_schema_up_to_date(uri: str) -> None:
    """What `mlflow server` does for an empty database, and `mlflow db upgrade` for one of an older release.

    Before the server listens, lest the first requests do it several times at once.
    """
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(uri)
    utils._safe_initialize_tables(engine)
    if utils._get_schema_version(engine) != utils._get_latest_schema_revision():
        utils._upgrade_db(engine)
    engine.dispose()


if __name__ == "__main__":
    main()
