"""The order of the work and what is logged: one file per entry point."""
