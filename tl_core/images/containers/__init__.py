"""Archives that are read in place: zip and tar."""
