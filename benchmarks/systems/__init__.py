"""One small adapter a file for every system that is measured; `interface.py` says what it does."""
