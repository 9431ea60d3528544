"""What is learned from measured rows: a correction of the roofline, the memory a runtime adds, and how far both err.

All but `layer` import numpy and scikit-learn at the top: import these files late.
"""
