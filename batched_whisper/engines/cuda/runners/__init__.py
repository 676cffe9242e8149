"""Batches of windows and rows through the model, recorded where that works."""
