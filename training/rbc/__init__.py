"""Training of system two: regions of red cells, several labels each (papers.md 2)."""
