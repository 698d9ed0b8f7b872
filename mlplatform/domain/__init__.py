"""What the platform computes, in pure Python and arrays: no Dagster, no clients, no input or output."""
