"""From the graph of a step to a program, and what is done with programs: a module for each pass."""
