"""What can be asked for on the command line, a module for each command, and the help that teaches
it."""
