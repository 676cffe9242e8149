"""Every option, declared once: what it is called, what it may be, where it is read from."""
