"""H2O: its server for training, its model files for scoring without one."""
