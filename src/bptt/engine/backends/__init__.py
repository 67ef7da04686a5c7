"""What runs a program: the Python loop, the plain interpreter, the compiled core."""
