"""What the entry points are told: their configs, and the fields of these."""
