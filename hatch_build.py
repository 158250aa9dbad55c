"""Put the sample data, whose original stands at the top of the repository, into the wheel."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = ("*.safetensors", "images/*.png", "masks/*.png")


class SampleData(BuildHookInterface):
    """Hatchling's hook; an editable install reads the originals through a link and needs none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to be added."""
        if version == "editable":
            return
        folder = Path(self.root) / "sample_data"
        for pattern in SHIPPED:
            for path in sorted(folder.glob(pattern)):
                place = Path("camanim/sample_data") / path.relative_to(folder)
                build_data["force_include"][str(path)] = str(place)
