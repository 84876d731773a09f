"""Interactive microscopy analysis in napari: click a cell, get an answer, correct it, retrain.

Importing this package is cheap on purpose: no torch, no napari, no Qt. Rooms:

core      words and shapes everyone shares      slides   open an image, read one region
models    model folders on disk                 systems  one folder a paper
backend   jobs, the worker process, the engine  bridge   napari layers <-> requests and results
widgets   Qt                                    samples  sample images      cli  the command line
"""

__version__ = "0.1.0"
