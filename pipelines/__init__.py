"""The orchestration: Dagster assets, MLflow tracking and the command line around `gan_core`."""
