"""The engine for every CPU."""
