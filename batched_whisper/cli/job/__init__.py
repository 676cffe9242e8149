"""Runs a job: the outcome of each recording, progress and summary."""
