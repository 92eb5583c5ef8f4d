"""Design → C99 library: kernels are files, Python writes tables, offsets and calls."""
