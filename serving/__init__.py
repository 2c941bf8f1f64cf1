"""What does this image show: onnxruntime, numpy and Pillow, nothing else."""
