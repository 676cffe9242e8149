"""What may be said next, and whether to believe it. No device, no thread."""
