"""What runs found, and how it is read back."""
