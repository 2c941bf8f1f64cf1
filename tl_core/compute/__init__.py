"""Devices, processes, clusters, and convolutions on small maps."""
