"""Movies, pictures and plots of a result."""

from camanim.render.frames import FrameRenderer
from camanim.render.movie import write_movie, write_picture
from camanim.render.plots import plot, write_plot

__all__ = ["FrameRenderer", "plot", "write_movie", "write_picture", "write_plot"]
