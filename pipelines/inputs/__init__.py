"""Inputs of a run: networks, targets, and the images that it may not have seen."""
