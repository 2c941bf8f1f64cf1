"""Scores with their confidence intervals: over episodes, over images, and by class."""
