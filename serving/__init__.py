"""Inference on images with onnxruntime, numpy and Pillow, nothing else."""
