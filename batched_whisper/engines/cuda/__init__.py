"""The engine for NVIDIA GPUs, in PyTorch; the only budget that imports it."""
