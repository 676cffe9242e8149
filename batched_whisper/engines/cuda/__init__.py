"""The engine for NVIDIA GPUs, in PyTorch; the only room that imports it."""
