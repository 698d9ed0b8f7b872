"""HTTP applications over the same domain and io as the assets; none of them imports Dagster."""
