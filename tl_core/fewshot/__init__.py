"""Fine-tuning on a few labelled images, scored on many episodes."""
