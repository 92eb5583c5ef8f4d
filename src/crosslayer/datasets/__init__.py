"""Labelled samples by name, file or folder, in three deterministic splits.

`catalog.load` reads a set, `catalog.catalog` lists the known ones, `download.get` fetches one. A format is one file
here that turns a file or folder into `parts.Parts`; a known set is one row in `catalog.py`.
"""
