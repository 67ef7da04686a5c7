"""Step programs as data: values and instructions, their meaning, and how they are printed."""
