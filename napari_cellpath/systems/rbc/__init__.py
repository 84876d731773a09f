"""RBC: what regions of red cells hold, several labels a region (papers.md 2).

Qiu, Guo, Li and others: a detector of connected cell regions, a label head for each type on
frozen features, and a booster that says whether any cell of the region is abnormal.
"""
