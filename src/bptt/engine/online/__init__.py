"""A whole update, from windows to new weights, as a plan for the core's online loop."""
