"""Conformance kits: what every operation, stage, target, network and data set must do."""
