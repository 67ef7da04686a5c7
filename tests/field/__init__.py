"""Other people's programs before and after `bptt`: `make field`."""
