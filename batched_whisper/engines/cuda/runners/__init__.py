"""Runs batches of windows and tokens through the model."""
