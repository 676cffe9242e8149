"""Text to token numbers and back, languages, and the prompt of a window."""
