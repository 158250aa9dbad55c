"""Files of results are recognised by their metadata, before anything heavy is imported."""

import json
import subprocess
import sys
import zipfile

import pytest

import camanim
from camanim import samples
from camanim.store import holds_result, is_result_path


@pytest.fixture(scope="module")
def animation():
    model = camanim.load_model("demo/ultrasound")
    return camanim.animate(model, samples.image("normal_1"), layers="blocks")


@pytest.mark.parametrize("name", ["a.zarr", "a.camanim.zarr", "a.ozx", "a.camanim.zip"])
def test_a_result_is_recognised(animation, tmp_path, name):
    path = animation.save(tmp_path / name)
    assert is_result_path(path)
    assert holds_result(path)


def test_other_files_are_not(tmp_path):
    foreign = tmp_path / "foreign.zarr"
    foreign.mkdir()
    assert not holds_result(foreign)
    (foreign / "zarr.json").write_text(json.dumps({"attributes": {"ome": {}}}))
    assert not holds_result(foreign)
    for text in ("", "[]", "{", "[" * 10**5):
        (foreign / "zarr.json").write_text(text)
        assert not holds_result(foreign)
    assert not holds_result(tmp_path / "missing.ozx")
    broken = tmp_path / "broken.ozx"
    broken.write_bytes(b"PK\x03\x04" + bytes(100))
    assert not holds_result(broken)
    empty = tmp_path / "empty.ozx"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("data", "x")
    assert not holds_result(empty)
    bomb = tmp_path / "bomb.ozx"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", '{"attributes": {"camanim": 1}}' + " " * 2**27)
    assert not holds_result(bomb)


def test_torch_is_not_imported_for_it():
    code = (
        "import sys; from camanim.store import holds_result; "
        "import napari_camanim.files.reader as r; assert r.reader('.') is None; "
        "print(sorted({'torch', 'zarr', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[]"
