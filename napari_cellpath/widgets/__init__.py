"""Qt: the docks. One frame shared by all systems, one session a dock that touches the viewer.

frame, sections, table, score_scale  views: signals out, setters in; they know no viewer
session, jobs                        the dock's state: viewer, bridge and backend
nuclei                               the DeepPap dock: wires its frame to its session
door                                 the one way from backend threads to the main thread
keys                                 one table of shortcuts
settings                             the user's defaults, kept by napari
"""
