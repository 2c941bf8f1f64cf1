"""Cross-validation of the whole procedure that makes a classifier, for an estimate of its accuracy on new images."""
