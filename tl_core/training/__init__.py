"""The training loop, and what is trained by it: pretraining, and training in stages."""
