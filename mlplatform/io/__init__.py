"""Plain clients and stores; a service can import them without Dagster."""
