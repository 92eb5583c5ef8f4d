"""Removing what the network needs least."""
