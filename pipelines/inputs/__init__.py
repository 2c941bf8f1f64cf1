"""What a run starts from, and what it may not have seen."""
