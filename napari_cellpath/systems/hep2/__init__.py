"""HEp-2: the staining pattern of each cell of a fluorescence image, by specimen (papers.md 4).

Li, Zhang and Zheng, arXiv 1604.05816. The figure of their network was never found; what stands
here is a labelled reconstruction.
"""
