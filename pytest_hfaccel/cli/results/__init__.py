"""The commands about the results of earlier runs: lists and pages, comparisons, and the cause of a failure."""
