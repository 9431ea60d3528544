"""How outputs are compared: distances, tolerances, real positions, the reference, and a wrong weight to try it with."""
