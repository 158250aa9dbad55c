"""Runs side by side: cells of one canvas, differences, and the table of the runs."""
