"""Programs for the compiled core."""
