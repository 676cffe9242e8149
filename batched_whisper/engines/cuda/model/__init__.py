"""The model in plain PyTorch: the definitions that the kernels are tested against."""
