"""Computations in a thread, and what they need from the window as plain data."""
