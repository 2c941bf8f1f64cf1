"""Where the freezing depth is applied: a backbone cut into a frozen prefix and a trained suffix."""
