"""HSP-Net: classes of tissue, pixel by pixel, over a region of a slide (papers.md 3).

Cervical intraepithelial neoplasia in the paper; the classes travel with the weights, so a model
may tell any others.
"""
