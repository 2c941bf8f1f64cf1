"""Hyper-parameters as frozen dataclasses, and the checks of their values. Nothing heavy is imported here."""
