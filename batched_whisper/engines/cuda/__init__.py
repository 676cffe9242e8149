"""The engine for NVIDIA GPUs, in PyTorch; only this package imports PyTorch."""
