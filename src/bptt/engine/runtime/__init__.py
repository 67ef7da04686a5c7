"""A call: which program, with which tensors, and its place in autograd."""
