"""Take the picture of a report for the guide: ``docs/images/report.png``.

    python docs/make_report.py

The report is opened in Chromium, which needs ``chromium``, ``chromedriver`` and selenium.
"""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

import camanim
from camanim import samples

TARGET = Path(__file__).parent / "images" / "report.png"
#: Size of the window in CSS pixels, and pixels of the picture per CSS pixel.
WIDTH, HEIGHT, SCALE = 1000, 1290, 0.6


def write(path: Path) -> None:
    """Write the report of a phantom with scores and checks."""
    model = camanim.load_model("demo/ultrasound")
    animation = camanim.animate(model, samples.image("malignant_1"))
    animation.score(repeats=3)
    animation.check_randomisation()
    animation.check_labels()
    camanim.write_report({"malignant_1": animation}, path)


def picture(path: Path) -> Image.Image:
    """Return a picture of the top of a page."""
    options = webdriver.ChromeOptions()
    with tempfile.TemporaryDirectory() as profile:
        for argument in (
            "headless=new",
            "no-sandbox",
            "hide-scrollbars",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{argument}")
        options.binary_location = shutil.which("chromium") or ""
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(path.as_uri())
            drawn = "return document.querySelector('canvas').dataset.drawn"
            WebDriverWait(driver, 20).until(lambda d: d.execute_script(drawn))
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        finally:
            driver.quit()
    return Image.open(BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def main() -> int:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        write(path)
        picture(path).save(TARGET, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
