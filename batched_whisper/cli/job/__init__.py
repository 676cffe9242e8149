"""A job from beginning to end: each recording's outcome, and what the user sees of it."""
