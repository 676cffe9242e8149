"""Finds, downloads and loads checkpoints; gives their weights one set of names."""
