"""DeepPap: abnormality of one cervical cell from a coarse nucleus centre (papers.md 1).

Zhang et al., "DeepPap: Deep Convolutional Networks for Cervical Cell Classification",
IEEE JBHI 2017.
"""
