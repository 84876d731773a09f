"""Qt: the docks. One frame shared by all systems, one session a dock that touches the viewer.

frame, sections, table, score_scale  views: signals out, setters in; they know no viewer
session, jobs                        the dock's state: viewer, bridge and backend
nuclei                               the DeepPap dock: wires its frame to its session
review, review_session               the review dock: its wiring, and its items, round and viewer
gallery, tiles, item_faces           many tiles, those in sight painted; what each says
thumbnails                           pictures cut from images, off the main thread
reading                              the blind second reading and its agreement
door                                 the one way from backend threads to the main thread
keys                                 one table of shortcuts
settings                             the user's defaults, kept by napari
"""
