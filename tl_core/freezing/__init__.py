"""The freezing depth, applied: a backbone cut into a frozen prefix and a trained suffix."""
