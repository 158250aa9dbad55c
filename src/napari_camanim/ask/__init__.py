"""The section "Ask" of the dock: what-if edits of the image, and explanations of a box or of windows."""
