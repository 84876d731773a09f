"""Words and shapes that every room shares. NumPy and the standard library only."""
