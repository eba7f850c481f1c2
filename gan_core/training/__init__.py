"""The training process: a job file in; a journal, grids, checkpoints and a generator out."""
