"""Views of images: fixed and random ones, their sizes, and mixtures."""
