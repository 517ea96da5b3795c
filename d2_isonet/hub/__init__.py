"""Ready networks by name, for plain PyTorch and timm. May import checkpoint and below."""
