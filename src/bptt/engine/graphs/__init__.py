"""Graphs of torch.fx: traced, rewritten, cut into parts, differentiated."""
