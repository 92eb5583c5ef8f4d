"""Rewriting a graph into a smaller one that computes the same."""
