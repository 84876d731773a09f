"""HEp-2's own part of training: recipe, data, pictures, run, protocols (papers.md 4)."""
