"""Backbones, their weights and their normalisation."""
