"""From bytes to features: decode, windows, features. Knows nothing of models."""
