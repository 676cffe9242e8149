"""Declares every option once: its name, its values and the sources it is read from."""
