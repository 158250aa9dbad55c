"""Movies and pictures of an animation: what each layer looked at, and how well that explains."""

from camanim.render.frames import FrameRenderer
from camanim.render.movie import write_movie, write_picture

__all__ = ["FrameRenderer", "write_movie", "write_picture"]
