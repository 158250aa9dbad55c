"""What is drawn on the canvas over the image and the maps."""
