"""Pages by kind of run: each module is called like its entry point and has a function `report`."""
