"""Results of runs: written once, read back everywhere else."""
