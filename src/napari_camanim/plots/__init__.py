"""The curves of findings below the canvas."""
