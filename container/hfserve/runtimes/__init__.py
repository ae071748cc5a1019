"""How tensors are run: devices, torch, tokenizing."""
