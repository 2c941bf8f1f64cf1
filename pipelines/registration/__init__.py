"""Evidence and notes of a version, as `register` compares and writes them."""
