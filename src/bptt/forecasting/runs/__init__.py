"""Runs: planned, trained, written to a folder, read again, drawn and reported."""
