"""MLflow: the connection, runs, artifacts and checkpoints."""
