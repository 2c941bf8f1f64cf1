"""Classes of images: which folder names them, and one name for each."""
