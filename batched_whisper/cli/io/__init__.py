"""Which recordings are meant, and where results go."""
