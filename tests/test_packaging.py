"""The wheel, the sdist and a wheel made from the sdist: what a user of the registry gets."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist, and a wheel built from it alone, as `python -m build` does."""
    out = tmp_path_factory.mktemp("dist")
    # The build tools are those of this environment, so that nothing is fetched.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def test_the_wheel_carries_manifest_and_samples_once(built):
    _, wheel = built
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert {"napari_camanim/napari.yaml", "napari_camanim/py.typed", "camanim/py.typed"} <= set(
        names
    )
    assert "camanim/sample_data/ultrasound.safetensors" in names
    images = [n for n in names if n.startswith("camanim/sample_data/images/")]
    masks = [n for n in names if n.startswith("camanim/sample_data/masks/")]
    assert (len(images), len(masks)) == (8, 6)
    assert not [n for n in names if n.endswith("sample_data/make.py")]
    templates = {Path(n).name for n in names if n.startswith("camanim/report/templates/")}
    shipped = {p.name for p in (ROOT / "src/camanim/report/templates").iterdir()}
    assert templates == shipped >= {"report.html.j2", "report.css", "report.js"}
    originals = {p.name for p in (ROOT / "sample_data/images").glob("*.png")}
    assert {Path(n).name for n in images} == originals


def test_the_sdist_has_the_originals(built):
    sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"napari.yaml", "sample_data/make.py", "sample_data/ultrasound.safetensors"} <= names


PROBE = """
import camanim, napari_camanim, npe2
from pathlib import Path
from camanim import samples
assert Path(camanim.__file__).is_relative_to({site!r}), camanim.__file__
manager = npe2.PluginManager.instance()
manager.discover()
manifest = manager.get_manifest("napari-camanim")
keys = [sample.key for sample in manifest.contributions.sample_data]
assert keys and set(keys) == set(samples.names()), keys
for sample in manifest.contributions.sample_data:
    layers = sample.open()
    assert layers[0][0].shape == (256, 256)
    assert len(layers) == 1 + (not sample.key.startswith("normal"))
animation = camanim.animate(camanim.load_model("demo/ultrasound"), samples.image("benign_1"))
assert animation.target.name == "benign"
print("all there")
"""


def test_the_wheel_works_installed(built, tmp_path):
    """In an environment of its own, which borrows all but the package from this one."""
    _, wheel = built
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel],
        check=True,
    )
    borrowed = next(p for p in sys.path if p.endswith("site-packages"))
    # Appended by path, not as a site: this environment's editable install must not come along.
    (site / "borrowed.pth").write_text(borrowed)
    probe = subprocess.run(
        [python, "-c", PROBE.format(site=str(site))],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert probe.returncode == 0, probe.stderr
    assert "all there" in probe.stdout
    validate = subprocess.run(
        [python, "-m", "npe2", "validate", "--imports", "napari-camanim"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert validate.returncode == 0, validate.stdout + validate.stderr
