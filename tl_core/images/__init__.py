"""Image files: where they lie, and how they are decoded. Free of torch; all that serving needs of the library."""
