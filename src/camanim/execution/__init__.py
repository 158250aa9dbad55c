"""Asking the network: once for all layers, or again for each; it comes back as it was."""
