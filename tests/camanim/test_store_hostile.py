"""Saved results from anywhere: code, bombs, damaged values; and saves that are interrupted."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import torch
from torch import nn

import camanim
from camanim import RenderError, StoreError, samples
from camanim.cam_methods import find_registered
from camanim.errors import MethodError
from camanim.findings import Finding, register_finding, unregister_finding
from camanim.images import Geometry
from camanim.store import container, differences, saving
from camanim.store.container import document_hash
from camanim.store.encoding import Encoder
from camanim.store.nodes import Invalid, check_nodes
from camanim.writing import complete_or_absent_folder, write_file

FEW = ["features.denseblock1", "features.norm5"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="killed processes of POSIX")


def ramp(*shape: int) -> np.ndarray:
    return np.linspace(0, 255, math.prod(shape)).reshape(shape).astype(np.uint8)


def flat_net() -> camanim.Model:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return camanim.Model(net, camanim.Preprocess(size=(32, 32), channels=1), ["a", "b", "c"])


@pytest.fixture
def plain() -> camanim.Animation:
    return camanim.animate(flat_net(), ramp(40, 48))


@pytest.fixture
def saved(plain, tmp_path) -> Path:
    return plain.save(tmp_path / "a.camanim.zarr")


@pytest.fixture(scope="module")
def demo() -> camanim.Animation:
    """Maps of the demo network with several findings; not to be changed."""
    model, image = camanim.load_model("demo/ultrasound"), samples.image("malignant_1")
    animation = camanim.animate(model, image, layers=FEW)
    animation.score(repeats=2, draws=2)
    animation.measure("deletion")
    animation.check_labels()
    animation.check_randomisation()
    animation.localise(samples.mask("malignant_1"))
    animation.check_region(samples.mask("malignant_1"))
    animation.check_layers(transforms=19)
    animation.check_activation(draws=19)
    return animation


def edit(path: Path, change: Callable[[dict[str, Any]], object], node: str = "zarr.json") -> Path:
    """Change metadata of a saved folder; those of the result get the hash that belongs to them."""
    document = json.loads((path / node).read_text())
    change(document)
    about = document["attributes"].get("camanim")
    if about is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError, RecursionError):
            about["sha256"] = document_hash(about["result"])
    (path / node).write_text(json.dumps(document))
    return path


def edit_result(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    return edit(path, lambda document: change(document["attributes"]["camanim"]["result"]))


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        camanim.load(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# -- Code ----------------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path, monkeypatch) -> str:
    """Return the name of a module that can be imported."""
    name = f"planted_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("class X: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_a_method_of_a_file_imports_no_module(saved, planted) -> None:
    edit_result(saved, lambda r: r["computed_with"].update(method=f"{planted}:X"))
    opened = camanim.load(saved, model=flat_net())
    assert opened.computed_with is None
    assert any("trust=True" in note for note in opened.notes)
    with pytest.raises(camanim.CamError):
        camanim.rerun(opened)
    assert planted not in sys.modules


@pytest.mark.parametrize("method", ["RefineCAM", "SESS"])
def test_an_option_of_a_file_imports_no_module(method, planted, tmp_path) -> None:
    options = {"scales": 1} if method == "SESS" else {}
    animation = camanim.animate(flat_net(), ramp(40, 48), method=method, options=options)
    path = animation.save(tmp_path / "a.camanim.zarr")
    assert camanim.load(path).computed_with is not None
    edit_result(
        path, lambda r: r["computed_with"]["settings"]["options"].update(base=f"{planted}:X")
    )
    opened = camanim.load(path, model=flat_net())
    with pytest.raises(camanim.CamError):
        camanim.rerun(opened)
    assert planted not in sys.modules


def test_registered_methods_are_found_by_name_only(planted) -> None:
    assert find_registered("Grad-CAM++").name == "GradCAM++"
    for name in (f"{planted}:X", "missing", 3):
        with pytest.raises(MethodError):
            find_registered(name)
    assert planted not in sys.modules


# -- Small files with large contents -------------------------------------------------------------------


def chunks(document: dict[str, Any], shape: list[int]) -> None:
    document["chunk_grid"]["configuration"]["chunk_shape"] = shape


NODES = {
    "many chunks": lambda d: (d.update(shape=[1, 1, 4000, 1000]), chunks(d, [1, 1, 1, 1])),
    "huge chunks": lambda d: chunks(d, [1, 1, 2**40, 2**40]),
    "huge shape": lambda d: d.update(shape=[1, 1, 2**30, 2**30]),
    "huge zeros": lambda d: (d.update(shape=[1, 1, 3, 3]), chunks(d, [1, 1, 30000, 30000])),
    "big endian": lambda d: d["codecs"][0]["configuration"].update(endian="big"),
    "no endian": lambda d: d["codecs"][0].pop("configuration"),
    "text": lambda d: d.update(data_type="string"),
    "records": lambda d: d.update(data_type={"name": "structured", "configuration": {}}),
    "pickle": lambda d: d["codecs"].append({"name": "numcodecs.pickle", "configuration": {}}),
    "sharding": lambda d: d.update(codecs=[{"name": "sharding_indexed", "configuration": {}}]),
    "transformers": lambda d: d.update(storage_transformers=[{"name": "x"}]),
    "empty chunks": lambda d: chunks(d, [0, 0, 0, 0]),
    "negative chunks": lambda d: chunks(d, [-1, 1, 1, 1]),
    "negative shape": lambda d: d.update(shape=[1, 1, -32, 32]),
    "separator": lambda d: d["chunk_key_encoding"].update(configuration={"separator": "/../"}),
    "fill": lambda d: d.update(fill_value=7),
    "attributes": lambda d: d["attributes"].update(x=[[]] * 30_000),
    "unknown key": lambda d: d.update(x=1),
}


@pytest.mark.parametrize("change", NODES)
def test_other_metadata_of_arrays_are_refused_before_zarr_reads_them(
    saved, change, monkeypatch
) -> None:
    import zarr

    edit(saved, NODES[change], "tensor/zarr.json")
    monkeypatch.setattr(zarr, "open_group", lambda *_, **__: pytest.fail("read by zarr"))
    refused(saved)


def test_chunks_that_state_another_size_are_refused(saved) -> None:
    chunk = saved / "tensor/c/0/0/0/0"
    whole = chunk.read_bytes()
    for content in (
        numcodecs.Zstd(1).encode(np.zeros(10**7, np.uint8)),
        numcodecs.Zstd(1).encode(np.zeros(4095, np.uint8)),
        b"",
        whole[:5],
        b"x" * len(whole),
        whole + bytes(2**20),
    ):
        chunk.write_bytes(content)
        refused(saved)
    # A frame without a stated size.
    chunk.write_bytes(whole[:4] + b"\x00\x58" + whole[6:])
    refused(saved)
    chunk.write_bytes(whole)
    (saved / "tensor/c/0/0/0/1").write_bytes(whole)
    refused(saved)
    (saved / "tensor/c/0/0/0/1").unlink()
    camanim.load(saved)


def test_long_metadata_are_refused(saved) -> None:
    with pytest.raises(Invalid, match="too long"):
        check_nodes({"zarr.json": 2**24}, lambda *_: pytest.fail("read"))
    with pytest.raises(Invalid, match="too long"):
        check_nodes(
            {"zarr.json": 9, "x/zarr.json": 2**17},
            lambda *_: b'{"zarr_format": 3, "node_type": "group"}',
        )
    for text in ("NaN", "Infinity", "1e999", "1" + "0" * 5000):
        document = (saved / "zarr.json").read_text()
        at = document.index('"probability": ') + len('"probability": ')
        (saved / "zarr.json").write_text(f'{document[:at]}{text}, "x": {document[at:]}')
        refused(saved)
        (saved / "zarr.json").write_text(document)


def zipped(folder: Path, path: Path, kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def test_compressed_and_overlapping_entries_of_zip_files_are_refused(saved, tmp_path) -> None:
    camanim.load(zipped(saved, tmp_path / "b.ozx"))
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert "without compression" in refused(zipped(saved, tmp_path / "b.ozx", kind))
    path = zipped(saved, tmp_path / "b.ozx")
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.getinfo("zarr.json")
        for k in range(50):
            entry = copy.copy(first)
            entry.filename = f"x{k}"
            archive.filelist.append(entry)
        archive._didModify = True
    refused(path)


def test_more_arrays_than_memory_are_refused(saved, monkeypatch) -> None:
    monkeypatch.setattr("camanim.execution.memory.system_memory", lambda: 10_000)
    assert "not enough memory" in refused(saved)


def test_a_picture_larger_than_the_memory_is_refused(plain, tmp_path) -> None:
    for kind in ("thumbnail", "none"):
        path = plain.save(tmp_path / f"{kind}.camanim.zarr", image=kind)
        edit_result(path, lambda r: r["image"].update(shape=[2**20, 2**20]))
        assert "not enough memory" in refused(path)


RESULTS = {
    "a map twice": lambda r: r.update(maps=[r["maps"][0]] * len(r["maps"])),
    "many maps": lambda r: r.update(maps=[r["maps"][0]] * 4000, layers=[0] * 4000),
    "another order": lambda r: r["layers"].reverse(),
    "geometry huge": lambda r: r["geometry"]["fields"].update(size={"$tuple": [10**9, 10**9]}),
    "geometry of text": lambda r: r["geometry"]["fields"].update(size="ab", scale="cd"),
    "geometry negative": lambda r: r["geometry"]["fields"].update(size={"$tuple": [-3, 0]}),
    "geometry of another size": lambda r: r["geometry"]["fields"].update(size={"$tuple": [8, 8]}),
    "geometry not finite": lambda r: r["geometry"]["fields"].update(
        scale={"$tuple": [{"$float": "nan"}, 1.0]}
    ),
    "input huge": lambda r: r.update(input_shape=[1, 1, 10**30, 3], tensor=None),
    "input of another shape": lambda r: r.update(input_shape=[1, 1, 64, 64]),
    "tensor of maps": lambda r: r.update(tensor={"$tensor": ["float32", "maps/32x32"]}),
    "image of another shape": lambda r: r["image"].update(shape=[48, 40]),
    "probability of text": lambda r: r.update(probability={"$tuple": []}),
    "time of text": lambda r: r.update(forward_seconds="x"),
    "time negative": lambda r: r.update(forward_seconds=-1.0),
    "extremes": lambda r: r.update(extremes=[1, 2]),
    "windows": lambda r: r.update(windows=r["geometry"]),
    "placement": lambda r: r.update(placement=3),
    "same_as": lambda r: r["layer_calls"][0].update(same_as=999),
    "target of an array": lambda r: r["target"]["fields"].update(name=3),
    "target that is none": lambda r: r.update(target=r["geometry"]),
    "target unit": lambda r: r.update(
        target={"$type": "Norm", "fields": {"name": "x", "unit": "metre"}}
    ),
    "nested target": lambda r: [
        r.update(target={"$type": "Counterfactual", "fields": {"target": r["target"]}})
        for _ in range(200)
    ],
    "notes of numbers": lambda r: r.update(notes=[1]),
    "card with more keys": lambda r: r["model"].update(card={"source": "demo/x", "trust": True}),
    "card with a file of classes": lambda r: r["model"].update(
        card={"source": "demo/ultrasound", "classes": "/etc/passwd"}
    ),
    "unknown finding value": lambda r: r["findings"].update(
        road={"kind": "road", "layers": None, "fields": {}}
    ),
}


@pytest.mark.parametrize("change", RESULTS)
def test_values_of_other_types_are_refused(saved, change) -> None:
    edit_result(saved, RESULTS[change])
    refused(saved)


def exercise(result: camanim.Animation) -> None:
    """Ask for all that is shown of a result."""
    assert repr(result)
    result.table()
    _ = result.warnings, result.initial_index, result.cancelled, result.source_geometry
    for finding in result.findings.values():
        finding.summary(), finding.panel(), finding.record(), finding.comparison()
        finding.listing(), finding.ranking(), finding.plots(), finding.main_values()
        for i in range(len(result)):
            finding.badge(i), finding.caption(i)
    assert len(result.stack())


WRONG = [None, "x", 10**18, -5, 1e308, [], {"a": 1}, {"$tuple": ["x"]}, {"$float": "nan"}]


def test_findings_with_wrong_values_are_refused_or_shown(demo, tmp_path) -> None:
    path = demo.save(tmp_path / "a.camanim.zarr", image="none")
    whole = (path / "zarr.json").read_text()
    result = json.loads(whole)["attributes"]["camanim"]["result"]
    array = {"$array": result["maps"][0][0]}
    count = 0
    for key, record in result["findings"].items():
        for k, field in enumerate(record["fields"]):
            for wrong in (WRONG[k % len(WRONG)], array):
                (path / "zarr.json").write_text(whole)
                edit_result(path, lambda r: r["findings"][key]["fields"].update({field: wrong}))  # noqa: B023
                try:
                    opened = camanim.load(path)
                except StoreError:
                    count += 1
                else:
                    exercise(opened)
    assert count > 40


@pytest.mark.parametrize("part", ["target", "provenance", "geometry"])
def test_parts_with_wrong_values_are_refused_or_shown(saved, part) -> None:
    whole = (saved / "zarr.json").read_text()
    for name in json.loads(whole)["attributes"]["camanim"]["result"][part]:
        for wrong in WRONG[::2]:
            (saved / "zarr.json").write_text(whole)
            edit_result(saved, lambda r: r[part].update({name: wrong}))  # noqa: B023
            try:
                opened = camanim.load(saved)
            except StoreError:
                continue
            exercise(opened)


def test_a_changed_digit_of_the_metadata_is_noticed(saved) -> None:
    text = (saved / "zarr.json").read_text()
    at = text.index('"probability": 0.') + len('"probability": 0.')
    (saved / "zarr.json").write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    assert "changed" in refused(saved)
    # Spaces and the order of keys are of no meaning.
    document = json.loads(text)
    (saved / "zarr.json").write_text(json.dumps(document, sort_keys=True))
    camanim.load(saved)


def test_texts_of_a_file_are_shown_short_and_printable(saved) -> None:
    evil = "9\n\x1b[31mclick " + "x" * 5000
    edit(saved, lambda d: d["attributes"]["camanim"].update(format=2, version=evil))
    assert "click" in refused(saved)
    edit(saved, lambda d: d["attributes"]["camanim"].update(format=1, version="1"))
    edit_result(saved, lambda r: r["findings"].update({evil: 3}))
    refused(saved)


@pytest.mark.parametrize(
    "path", [None, 3, b"a.ozx", "a" * 300 + ".ozx", "a\0.ozx", "\ud800.ozx", ""]
)
def test_what_is_no_path_is_an_error(plain, path) -> None:
    with pytest.raises(StoreError):
        camanim.load(path)
    with pytest.raises((StoreError, RenderError)):
        plain.save(path)


# -- Saving --------------------------------------------------------------------------------------------


def interrupted(monkeypatch, after: Callable[[str], bool], error: BaseException) -> None:
    """Raise an error once, right after a folder was moved to a name."""
    replaced = os.replace

    def replace_once(source, target) -> None:
        replaced(source, target)
        if after(str(target)):
            monkeypatch.setattr(os, "replace", replaced)
            raise error

    monkeypatch.setattr(os, "replace", replace_once)


def test_an_interrupt_between_the_renames_keeps_the_older_result(saved, plain, monkeypatch) -> None:
    interrupted(monkeypatch, lambda name: name.endswith(".old"), KeyboardInterrupt())
    plain.probability = 0.5
    with pytest.raises(KeyboardInterrupt):
        plain.save(saved)
    assert names(saved.parent) == [saved.name]
    assert camanim.load(saved).probability != 0.5


KILLED = """
import os, sys
from pathlib import Path
from camanim.writing import complete_or_absent_folder
replace = os.replace
def killed(source, target):
    replace(source, target)
    if str(target).endswith(sys.argv[2]):
        os._exit(9)
os.replace = killed
with complete_or_absent_folder(Path(sys.argv[1])) as folder:
    (folder / "x").write_text("new")
"""


@posix
@pytest.mark.parametrize(("at", "content"), [(".old", "older"), ("a.zarr", "new")])
def test_the_next_write_restores_what_a_killed_process_had_moved(tmp_path, at, content) -> None:
    target = tmp_path / "a.zarr"
    target.mkdir()
    (target / "x").write_text("older")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), at], check=False)
    assert done.returncode == 9
    assert len(names(tmp_path)) > 1
    write_file(tmp_path / "b.txt", b"")
    assert names(tmp_path) == ["a.zarr", "b.txt"]
    assert (target / "x").read_text() == content


def test_planted_folders_are_kept(tmp_path) -> None:
    folder = tmp_path / "photos.12345678.part"
    folder.mkdir()
    (folder / "a.jpg").write_text("mine")
    (tmp_path / "photos.12345678.part.lock").write_text("")
    write_file(tmp_path / "b.txt", b"")
    assert (folder / "a.jpg").read_text() == "mine"


def test_a_folder_of_another_save_in_between_is_replaced(tmp_path, monkeypatch) -> None:
    target = tmp_path / "a.zarr"
    replaced, done = os.replace, []

    def replace_late(source, destination) -> None:
        if Path(destination) == target and len(done) < 3:
            # Another process is faster.
            target.mkdir(exist_ok=True)
            (target / f"x{len(done)}").write_text("other")
            done.append(1)
        replaced(source, destination)

    monkeypatch.setattr(os, "replace", replace_late)
    with complete_or_absent_folder(target) as folder:
        (folder / "x").write_text("new")
    assert len(done) == 3
    assert names(tmp_path) == ["a.zarr"]
    assert names(target) == ["x"]


def test_a_folder_that_appears_meanwhile_is_kept(plain, tmp_path) -> None:
    target = tmp_path / "a.camanim.zarr"

    def appear(stage: str, done: int, total: int) -> None:
        target.mkdir(exist_ok=True)
        (target / "thesis.txt").write_text("mine")

    with pytest.raises(StoreError):
        plain.save(target, progress=appear)
    assert names(tmp_path) == [target.name]
    assert names(target) == ["thesis.txt"]


def test_folders_with_files_of_the_user_are_kept(saved, plain, tmp_path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"notes\.txt"):
        plain.save(saved)
    (saved / "notes.txt").unlink()
    (saved / ".DS_Store").write_text("of the system")
    plain.save(saved)
    for attributes in ("see camanim thesis", {"camanim": "thesis"}, {"camanim": {}}):
        (saved / "zarr.json").write_text(json.dumps({"attributes": attributes}))
        with pytest.raises(StoreError):
            plain.save(saved)


def test_a_folder_named_lock_is_no_obstacle(plain, tmp_path) -> None:
    (tmp_path / "a.lock").mkdir()
    plain.save(tmp_path / "a.zarr")
    assert names(tmp_path) == ["a.lock", "a.zarr"]


@pytest.mark.parametrize("suffix", [".camanim.zarr", ".ozx"])
@pytest.mark.parametrize("function", ["_write", "_zip"])
def test_a_disk_that_fills_is_an_error_of_writing(
    plain, tmp_path, monkeypatch, suffix, function
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(container, function, full)
    if function == "_zip" and suffix != ".ozx":
        plain.save(tmp_path / f"a{suffix}")
        return
    with pytest.raises(RenderError, match=os.strerror(errno.ENOSPC)):
        plain.save(tmp_path / f"a{suffix}")
    assert names(tmp_path) == []


@dataclass(frozen=True)
class Mine(Finding):
    """A finding of a user."""

    kind = "mine"
    title = "Mine"
    größe: np.ndarray = None
    Größe: np.ndarray | None = None
    extra: object = None

    def columns(self):
        """Return a value for each layer."""
        return {"mine": [1.0] * len(self.layers)}


@pytest.fixture
def mine():
    @register_finding(Mine)
    def compute(result) -> Mine:
        """Compute nothing."""
        return Mine(result.layers)

    yield Mine
    unregister_finding("mine")


def test_arrays_with_any_name_are_saved(plain, mine, tmp_path) -> None:
    plain.add(mine(plain.layers, np.arange(4), np.arange(5)))
    opened = camanim.load(plain.save(tmp_path / "a.camanim.zarr"))
    assert np.array_equal(opened.findings["mine"].größe, np.arange(4))
    assert np.array_equal(opened.findings["mine"].Größe, np.arange(5))


def changed(result: camanim.Animation, change: Callable[[camanim.Animation], object]):
    other = copy.copy(result)
    change(other)
    return other


UNSAVABLE = {
    "float16": lambda a: setattr(a, "maps", [m.astype(np.float16) for m in a.maps]),
    "one float64": lambda a: setattr(a, "maps", [a.maps[0].astype(float), *a.maps[1:]]),
    "masked": lambda a: setattr(a, "maps", [np.ma.masked_array(m, m > 0) for m in a.maps]),
    "a float image": lambda a: setattr(a, "image", a.image.astype(float)),
    "too few maps": lambda a: setattr(a, "maps", a.maps[1:]),
    "another order": lambda a: (a.layers.reverse(), a.maps.reverse()),
    "geometry": lambda a: setattr(a, "geometry", Geometry((8, 8))),
    "a finding of some layers": lambda a: a.add(Mine(a.layers[:2])),
    "a finding with a set": lambda a: a.add(Mine(a.layers, extra={1})),
    "time": lambda a: setattr(a, "forward_seconds", float("nan")),
}


@pytest.mark.parametrize("change", UNSAVABLE)
def test_a_result_that_would_not_open_is_not_saved(plain, mine, change, tmp_path) -> None:
    UNSAVABLE[change](plain)
    with pytest.raises(StoreError):
        plain.save(tmp_path / "a.ozx")
    assert names(tmp_path) == []


def test_notes_may_be_a_tuple(plain, tmp_path) -> None:
    plain.notes = ("x",)
    assert camanim.load(plain.save(tmp_path / "a.ozx")).notes == ["x"]


@pytest.mark.parametrize(
    "value",
    [
        np.longdouble(1), np.array([1], np.longdouble), np.complex64(1j), np.array([1j]), 1j,
        np.datetime64("now"), np.array(["a"]), np.ma.masked_array([1, 2], [0, 1]), 1 << 5000, b"x",
        torch.ones(2, dtype=torch.complex64), torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, device="meta"), torch.ones(4).to_sparse(), range(3), Path("x"),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)  # fmt: skip
def test_values_that_a_file_cannot_hold_are_errors(value) -> None:
    with pytest.raises(StoreError):
        Encoder().encode(value, "value")


def test_arrays_in_settings_become_lists(tmp_path) -> None:
    box = np.array([4, 8, 36, 40])
    animation = camanim.animate(flat_net(), ramp(40, 48), box=box)
    path = animation.save(tmp_path / "a.ozx")
    opened = camanim.load(path, model=flat_net())
    assert list(opened.computed_with[1].box) == list(box)
    assert camanim.rerun(opened).equal


@pytest.mark.parametrize("image", ["thumbnail", "none"])
def test_the_stack_is_saved_with_the_image_unless_asked_for(plain, image, tmp_path) -> None:
    for stack in (None, True, False):
        path = plain.save(tmp_path / "a.camanim.zarr", image=image, stack=stack)
        assert (path / "stack").exists() == bool(stack)
    assert (plain.save(path) / "stack").exists()


# -- The network of a saved result ---------------------------------------------------------------------


SCRIPT = """
import torch, camanim
from torch import nn
class Own(camanim.Model):
    pass
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def build_own():
    return Own(build())
"""


def test_an_opened_result_is_saved_without_loading_the_network(tmp_path) -> None:
    (tmp_path / "net.py").write_text(SCRIPT)
    model = camanim.load_model(f"{tmp_path}/net.py:build", trust=True)
    animation = camanim.animate(model, ramp(20, 24, 3))
    first = animation.save(tmp_path / "a.camanim.zarr")
    (tmp_path / "below").mkdir()
    opened = camanim.load(first)
    second = opened.save(tmp_path / "below" / "b.camanim.zarr")
    assert not opened.model.is_loaded
    card = json.loads((second / "zarr.json").read_text())["attributes"]["camanim"]["result"][
        "model"
    ]["card"]
    assert card["source"] == "../net.py:build"
    assert camanim.rerun(camanim.load(second, trust=True)).equal
    (tmp_path / "net.py").unlink()
    camanim.load(first).save(tmp_path / "c.ozx")


def test_questions_of_notebooks_do_not_load_the_network(tmp_path) -> None:
    animation = camanim.animate(
        camanim.load_model("demo/ultrasound"), samples.image("normal_1"), layers=FEW
    )
    model = camanim.load(animation.save(tmp_path / "a.ozx")).model
    for name in ("_repr_html_", "_ipython_display_", "shape", "_path_of_nothing"):
        assert not hasattr(model, name)
    copied = copy.copy(model)
    assert not model.is_loaded
    copied.net = animation.model.net
    assert copied.shown_name == animation.model.shown_name
    assert not copied.random_weights
    prepared = copied.prepare(samples.image("normal_1"))
    assert torch.equal(prepared.tensor, animation.tensor)
    assert not model.is_loaded
    assert model.preprocess.size == animation.model.preprocess.size
    assert model.is_loaded


def test_a_subclass_of_model_is_passed_again(tmp_path) -> None:
    (tmp_path / "net.py").write_text(SCRIPT)
    model = camanim.load_model(f"{tmp_path}/net.py:build_own", trust=True)
    assert type(model) is not camanim.Model
    opened = camanim.load(
        camanim.animate(model, ramp(20, 24, 3)).save(tmp_path / "a.ozx"), trust=True
    )
    with pytest.raises(camanim.ModelError, match="given as an object"):
        opened.score()


def test_a_result_without_a_hash_of_weights_says_so(plain, tmp_path) -> None:
    del plain.provenance["weights sha256"]
    path = plain.save(tmp_path / "a.ozx")
    opened = camanim.load(path, model=flat_net())
    assert any("not compared" in note for note in opened.notes)
    again = camanim.load(opened.save(tmp_path / "b.ozx"))
    assert len(again.notes) == len(opened.notes)


def test_an_image_that_is_prepared_in_another_way_is_refused(plain, tmp_path) -> None:
    path = plain.save(tmp_path / "a.ozx", image="none")
    complete = camanim.load(path, model=flat_net(), image=ramp(40, 48))
    assert torch.equal(complete.tensor, plain.tensor)
    with pytest.raises(StoreError, match="prepared"):
        camanim.load(path, model=flat_net().net, image=ramp(40, 48))

    other = flat_net()
    other.preprocess = replace(other.preprocess, mean=(0.25,))
    with pytest.raises(StoreError, match="prepared"):
        camanim.load(path, model=other, image=ramp(40, 48))


def test_the_image_of_a_plane_cannot_be_given(tmp_path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()
    )
    plane = camanim.animate(net, ramp(8, 12, 16)).plane(3)
    path = plane.save(tmp_path / "a.ozx", image="none")
    with pytest.raises(StoreError):
        camanim.load(path, model=net, image=ramp(8, 12, 16))


@pytest.mark.parametrize("image", ["thumbnail", "none"])
def test_a_result_without_its_image_saved_again_does_not_claim_one(plain, image, tmp_path) -> None:
    first = plain.save(tmp_path / "a.ozx", image=image)
    opened = camanim.load(first)
    second = camanim.load(opened.save(tmp_path / "b.ozx"))
    assert second.notes == opened.notes
    assert second.tensor.is_meta
    # The input is still compared.
    camanim.load(tmp_path / "b.ozx", model=flat_net(), image=ramp(40, 48))
    with pytest.raises(StoreError, match="prepared"):
        camanim.load(tmp_path / "b.ozx", model=flat_net().net, image=ramp(40, 48))


# -- Comparing -----------------------------------------------------------------------------------------


def test_a_rerun_has_the_versions_of_now(saved) -> None:
    edit_result(
        saved, lambda r: r["provenance"].update(torch="1.0", camanim="0.0.1", device="cuda:7")
    )
    run = camanim.rerun(camanim.load(saved, model=flat_net()))
    assert run.result.provenance["torch"] == torch.__version__
    assert run.result.provenance["device"] == "cpu"
    assert {each.part for each in run.differences if each.verdict == "different"} == {
        "torch", "camanim", "device",
    }  # fmt: skip
    assert run.equal


def test_a_rerun_names_what_was_not_compared(plain, saved) -> None:
    plain.localise(ramp(40, 48) > 100)
    run = camanim.rerun(plain)
    assert run.equal
    assert [each.part for each in run.not_compared] == ["localisation"]
    assert "localisation" in run.words
    unequal = replace(run, differences=[differences.Difference("maps", "not compared")])
    assert not unequal.equal


NAN, INF = float("nan"), float("inf")
PAIRS = [
    (np.array([INF, 1.0]), np.array([-INF, 1.0]), "different"),
    (np.array([NAN, 1.0]), np.array([INF, 1.0]), "different"),
    (np.array([NAN, INF]), np.array([NAN, INF]), "equal"),
    (NAN, INF, "different"),
    (NAN, NAN, "equal"),
    (np.array([1 + 2j]), np.array([1 + 3j]), "different"),
    (np.array([2**60]), np.array([2**60 + 1]), "different"),
    (2**2000, 2**2000 + 1, "different"),
    (10**400, 1.5, "different"),
    ([NAN], [NAN], "equal"),
    ((1.0,), (1.0 + 1e-12,), "close"),
    ({"a": [1.0, NAN]}, {"a": [1.0 + 1e-12, NAN]}, "close"),
    ({"a": 1}, {"b": 1}, "different"),
    (np.array(["a"]), np.array(["a"]), "equal"),
    (np.array(["a"]), np.array(["b"]), "different"),
    (np.float32(1), np.float32(1.0000001), "close"),
    (0.0, -0.0, "close"),
    (1, 1.0, "equal"),
    (1, 1.1, "different"),
    (True, 1, "different"),
    ("a", None, "different"),
    (np.zeros(3, np.float32), np.zeros(3), "close"),
    (np.array([1e308]), np.array([-1e308]), "different"),
]


@pytest.mark.parametrize(("one", "other", "verdict"), PAIRS)
def test_values_are_compared_by_their_bits(plain, mine, one, other, verdict) -> None:
    results = [copy.copy(plain) for _ in range(2)]
    for result, value in zip(results, (one, other), strict=True):
        result.findings = {}
        result.add(mine(result.layers, extra=value))
    (found,) = [each for each in camanim.diff(*results) if each.part == "mine"]
    assert found.verdict == verdict


def test_the_worst_map_is_one_that_is_not_defined(plain) -> None:
    other = copy.copy(plain)
    other.maps = [values * 2 for values in plain.maps]
    other.maps[1] = np.full_like(plain.maps[1], np.nan)
    (maps,) = [each for each in camanim.diff(plain, other) if each.part == "maps"]
    assert plain.layers[1].label in maps.words
    assert maps.largest is None


def test_images_geometries_and_statuses_are_compared(plain) -> None:
    other = copy.copy(plain)
    other.image = plain.image[::-1]
    other.geometry = replace(plain.geometry, offset=(1.0, 0.0))
    other.layer_calls = [replace(plain.layer_calls[0], status="cancelled"), *plain.layer_calls[1:]]
    parts = {each.part: each for each in camanim.diff(plain, other)}
    for name in ("image", "geometry", "layer status"):
        assert parts[name].verdict == "different"
    assert not {"image", "geometry", "layer status"} & {
        each.part for each in camanim.diff(plain, copy.copy(plain))
    }


def test_names_that_a_result_can_have_are_known() -> None:
    assert {"zarr.json", "maps", "findings", "tensor", "stack", "image"} <= saving._NAMES
