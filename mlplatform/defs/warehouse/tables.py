"""The tables that the churn pipelines read: made by migrations, and filled with sample data on a laptop."""

from pathlib import Path

import dagster as dg

from mlplatform.components.batch.automation import PIPELINE_TAG
from mlplatform.resources.stores import Stores

SAMPLE = Path(__file__).parents[1] / "churn" / "data" / "telco_churn.csv"


def _table(name: str, pipeline: str, description: str) -> dg.AssetsDefinition:
    """The table as an asset that the job of the pipeline sees to before it reads it."""

    @dg.asset(
        name=name,
        description=description,
        group_name="churn",
        kinds={"postgres"},
        owners=["team:ml-platform"],
        tags={PIPELINE_TAG: pipeline},
    )
    def table(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:
        from mlplatform.io.warehouse import load_telco, migrate

        url = stores.settings.database_url
        context.log.info(f"the tables of the warehouse are at {migrate(url)}")
        if stores.settings.environment != "local":
            # Elsewhere the rows are the user's.
            return dg.MaterializeResult()
        found = load_telco(url, SAMPLE)
        if found.loaded:
            context.log.info(
                f"sample data: {found.customers:,} customers and {found.customers_to_score:,} to score; "
                f"{found.empty_total_charges} had no total_charges, which is 0 now"
            )
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": getattr(found, name),
                "empty_total_charges": found.empty_total_charges,
            }
        )

    return table


customers = _table(
    "customers",
    "training_churn_model_v1",
    "Customers with what is known of them, and whether they left (`churned`).",
)
customers_to_score = _table(
    "customers_to_score",
    "serving_churn_model_v1",
    "Customers of whom it is to be said whether they will leave.",
)
