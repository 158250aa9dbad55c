"""The plots of findings in the window."""
