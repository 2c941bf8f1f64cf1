"""What runs keep, and how it is read back: the store, networks, scores, answers, pictures."""
