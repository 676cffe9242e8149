"""One recording's way from sound to transcript. Knows no device."""
