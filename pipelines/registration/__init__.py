"""What `register` compares and writes."""
