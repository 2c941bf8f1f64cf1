"""Trusted versions: registration, gate, promotion."""
