"""Movies, pictures and plots of a result."""

from camanim.render.folder import movie_from_folder
from camanim.render.frames import FrameRenderer
from camanim.render.grid import write_grid_movie
from camanim.render.movie import write_movie, write_picture
from camanim.render.plots import plot, write_plot

__all__ = [
    "FrameRenderer",
    "movie_from_folder",
    "plot",
    "write_grid_movie",
    "write_movie",
    "write_picture",
    "write_plot",
]
