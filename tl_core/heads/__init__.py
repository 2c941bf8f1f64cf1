"""Heads on features, and the classifier that backbone and head make."""
