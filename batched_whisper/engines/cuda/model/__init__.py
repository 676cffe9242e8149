"""The model in plain PyTorch: the definitions that kernels are held against."""
