"""The network as the tree of its modules."""
