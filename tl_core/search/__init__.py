"""Hyper-parameter search with Optuna, on paired episodes."""
