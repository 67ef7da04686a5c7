"""From operators of PyTorch to instructions of a program."""
