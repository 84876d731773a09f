"""One folder a paper. Importing this package imports no torch; networks load when built."""
