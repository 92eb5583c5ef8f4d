"""The data sheet of a design: one self-contained page, and a table for the terminal."""
