"""How nodes run on a small processor: C kernels, and for each what it can run, its packed constants and its scratch."""
