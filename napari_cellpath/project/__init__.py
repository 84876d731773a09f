"""A project: annotations with their history, the split, import and export. No torch, no napari."""
