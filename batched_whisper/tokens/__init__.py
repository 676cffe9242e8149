"""Tokenizer, languages, and the prompt of a window."""
