"""The way between napari's layers and the backend's requests and results. napari, no Qt.

conventions  what our layers carry, how they are made and found
sources      image layer -> the image a request names (a file, or pixels in memory)
columns      one table of facts about nuclei, kept as NumPy columns
appearance   how a nucleus looks, from those facts
nuclei       controller of one points layer: events in, results out, by uid
held         that controller shared by all docks that work on the layer
review, deck layers as items to review, alone and side by side
export       rows for the CSV, and the command line that gives the same numbers
timing       the main thread's CPU time inside our callbacks
"""
