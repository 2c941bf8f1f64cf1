"""Configs of the entry points, by the question that a group of fields answers."""
