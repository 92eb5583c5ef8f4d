"""Networks from files of other frameworks; every problem of a file is told at once."""
