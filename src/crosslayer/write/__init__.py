"""Networks as files of other frameworks."""
