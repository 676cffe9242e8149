"""Turns decoded windows into segments and a transcript."""
