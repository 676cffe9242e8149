"""What `benchmarks.cuda_bench` is made of; nothing in it needs more than NumPy and PyTorch."""
