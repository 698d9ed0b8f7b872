"""What the control plane keeps in PostgreSQL, and what it asks of Dagster."""
