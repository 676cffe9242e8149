"""Where a checkpoint comes from, and its weights under one set of names."""
