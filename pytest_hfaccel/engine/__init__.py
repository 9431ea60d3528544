"""From what the user asked for to the records of cells: the plan, the matrix, and one cell from lease to record."""
