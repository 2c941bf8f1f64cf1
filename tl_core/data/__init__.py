"""Labelled images: data specs, the decoded cache, splits and episodes."""
