"""What a report says in words: statements, settings, hashes, the call that computes a result again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.cam_methods import methods
from camanim.checks.verdict import Check
from camanim.declarations import settings_of
from camanim.findings import FindingKind, finding_kinds
from camanim.models.names import has_prefix
from camanim.settings import Settings, WindowSettings

if TYPE_CHECKING:
    from camanim.findings import Finding
    from camanim.result import Result

#: What no map and no score can claim; docs/trust.md gives reasons and measurements.
LIMITS = (
    "A class activation map summarises the activation of one layer. It does not prove why a network "
    "decided.",
    "Local normalisation hides weak evidence: every map is scaled by its maximum. Compare the global "
    "normalisation and the raw maximum.",
    "Resolution differs between layers: the map of a late layer has few cells, and is enlarged.",
    "Some layer has the highest score in any case, also if the maps explain nothing.",
    "Scores of perturbed images, such as ROAD, measure whether a map matters to the network, not "
    "whether it lies on the object. A map that is bright beside the object can be correct about the "
    "network.",
    "A passed check is no proof.",
)
#: The root of a file system at the beginning of a path.
_ROOT = re.compile(
    r"""file:/+(?=[^\s/]) | (?<![\w.:/\\])/(?![\s/]) | (?<![\w.~/\\])~[\w.-]*[/\\]
        | \b[A-Za-z]:[\\/](?!/) | (?<![\w\\])\\\\(?=\S)""",
    re.VERBOSE,
)
_SEPARATOR = re.compile(r"[/\\]+")
#: Ends of a path in quotes; an apostrophe within a word is no quote.
_QUOTES = {'"': re.compile('"'), "'": re.compile(r"(?<!\w)'|'(?!\w)")}
#: The name of a file with its suffix, and then a space at the end or the beginning of a quotation: what
#: follows is no part of its path.
_ENDED = re.compile(r"""\.\w{1,12}\b.*(?:\s$|[\s(]["'])""")
_MAX_ITEMS = 12
#: In the notes about a network that was not trained.
_RANDOM = "random weights"


def without_folders(text: str) -> str:
    """Return running text with only the last part of each absolute path, as its folders may name people.

    Names of folders may hold any character, so that the end of a path is not known: up to the end of
    its line or quotation, all is removed before the last separator that may be one of the path.
    """
    return "".join(_line_without_folders(line) for line in text.splitlines(keepends=True))


def _line_without_folders(line: str) -> str:
    kept, at = [], 0
    while root := _ROOT.search(line, at):
        stop = _stop(line, root)
        last = _last_separator(line, root, stop)
        if last is None:
            # A name in the root, or no path.
            kept.append(line[at : root.end()])
            at = root.end()
            continue
        kept.append(line[at : root.start()])
        at = last
    return "".join(kept) + line[at:]


def _stop(line: str, root: re.Match[str]) -> int:
    """Return where the quotation of a path ends, or the line."""
    before = line[root.start() - 1] if root.start() else ""
    end = _QUOTES[before].search(line, root.end()) if before in _QUOTES else None
    return len(line) if end is None else end.start()


def _last_separator(line: str, root: re.Match[str], stop: int) -> int | None:
    """Return the end of the last separator of a path; None if there is none after its root."""
    last = None
    for separator in _SEPARATOR.finditer(line, root.end(), stop):
        if _ENDED.search(line[last or root.end() : separator.start()]):
            break
        last = separator.end()
    return last


def file_name(text: str) -> str:
    """Return the last part of a text that is an absolute path; `without_folders` of any other text."""
    for path in (PureWindowsPath(text), PurePosixPath(text)):
        if path.is_absolute() and path.name:
            return path.name
    return without_folders(text)


@dataclass(frozen=True)
class Statement:
    """A finding in words.

    Attributes
    ----------
    title : str
    text : str
        Its summary, or the verdict of a failed check.
    explanation : str
        What its values mean.
    verdict : str
        "passed", "failed", "undefined", or empty if it is no check.
    settings : str
    """

    title: str
    text: str
    explanation: str
    verdict: str
    settings: str


def statements(result: Result) -> list[Statement]:
    """Return all findings in words."""
    return [_statement(finding) for finding in result.findings.values()]


def _statement(finding: Finding) -> Statement:
    panel = finding.panel()
    verdict = ""
    if isinstance(finding, Check):
        verdict = {True: "passed", False: "failed", None: "undefined"}[finding.passed]
    kind = finding_kinds().get(finding.kind)
    title = finding.title or finding.key
    return Statement(
        title if finding.key == finding.kind else finding.key,
        " ".join(filter(None, (finding.summary(), *finding.warnings()))),
        (panel.tip if panel is not None else "") or ("" if kind is None else kind.help),
        verdict,
        ", ".join(f"{k}={shown(v)}" for k, v in finding.parameters.items() if v is not None),
    )


def missing(result: Result) -> list[FindingKind]:
    """Return the kinds of findings that were not computed."""
    computed = {finding.kind for finding in result.findings.values()}
    return [kind for name, kind in finding_kinds().items() if name not in computed]


def checks_in_words(result: Result) -> str:
    """Return how many checks passed and failed, or that none was run."""
    verdicts = [f.passed for f in result.findings.values() if isinstance(f, Check)]
    kinds = [kind for kind in finding_kinds().values() if issubclass(kind.finding, Check)]
    computed = {finding.kind for finding in result.findings.values()}
    absent = [kind.title.lower() for kind in kinds if kind.name not in computed]
    if not verdicts:
        return (
            f"No check was run, such as {' or '.join(absent)}." if absent else "No check was run."
        )
    counts = {
        "passed": verdicts.count(True),
        "failed": verdicts.count(False),
        "undefined": verdicts.count(None),
    }
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    text = f"Checks: {', '.join(parts)}"
    return f"{text}; not run: {', '.join(absent)}." if absent else f"{text}."


def without_evidence(result: Result) -> str:
    """Return how many layers have no positive evidence; empty if all have some."""
    count = sum(result.highest(i) <= 0 for i in range(len(result)))
    if not count:
        return ""
    layers = "layer has" if count == 1 else "layers have"
    return f"{count} of {len(result)} {layers} no positive evidence for the target."


def warnings(result: Result) -> list[str]:
    """Return the warnings of findings, and those of random weights and a cancelled run."""
    lines = [note for note in result.notes if _RANDOM in note]
    if result.random_weights and not lines:
        lines.append(f"The network has {_RANDOM}: its maps say nothing about the image.")
    if result.cancelled:
        lines.append("The run was cancelled: some layers or windows have no map.")
    return [without_folders(line) for line in (*lines, *result.warnings)]


def remarks(result: Result) -> list[str]:
    """Return the notes that are no warnings, and what follows from the windows and the maps."""
    lines = []
    if result.windows is not None:
        windows = result.windows
        values = windows.values[windows.done]
        sides = " x ".join(map(str, windows.size))
        line = f"{windows.computed} of {len(windows)} windows of {sides} pixels were computed"
        if values.size:
            line += (
                f"; the median of the target's {result.target.unit} is {np.nanmedian(values):.3g}"
            )
        lines.append(f"{line}.")
    notes = [without_folders(note) for note in result.notes if _RANDOM not in note]
    lines += [without_evidence(result), *notes]
    return list(dict.fromkeys(filter(None, lines)))


def about_method(result: Result) -> dict[str, str]:
    """Return summary, caveat and paper of the method, as far as it is a known one."""
    method = methods().get(result.method)
    if method is None:
        return {}
    values = {"summary": method.summary, "caveat": method.caveat, "paper": method.paper}
    return {name: value for name, value in values.items() if value}


def shown(value: Any) -> str:
    """Return a recorded value as text: long lists by their length, and paths without folders."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        if len(value) > _MAX_ITEMS or any(
            isinstance(v, list | tuple) and len(v) > 6 for v in value
        ):
            return f"{len(value)} values"
        return ", ".join(map(shown, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else file_name(str(value))


def provenance(result: Result) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return groups of what was recorded: settings, input and versions, hashes."""
    names = {"method", "target", "windows", *settings_of(Settings)} - {"device"}
    groups: dict[str, list[tuple[str, str]]] = {
        "Settings": [],
        "Input and versions": [],
        "Hashes (SHA-256)": [],
    }
    for name, value in result.provenance.items():
        if name.endswith("sha256"):
            title = name.removesuffix("sha256").strip()
            groups["Hashes (SHA-256)"].append((title, shown(value)))
        else:
            group = "Settings" if name in names else "Input and versions"
            groups[group].append((name.replace("_", " "), shown(value)))
    return [(title, entries) for title, entries in groups.items() if entries]


# -- The call --------------------------------------------------------------------------------------


def recomputation(result: Result) -> str:
    """Return the Python code that computes a result again.

    What cannot be written as text, such as a network of one's own, is replaced by an ellipsis.
    """
    record = result.provenance
    windows = record.get("windows")
    function = "animate" if windows is None else "animate_windows"
    arguments = [
        f"method={result.method!r}",
        f"target={_target(result)}",
        *_window_settings(windows),
        *_settings(record),
    ]
    lines = ["import camanim", "", _model(record)]
    lines.append(f"image = camanim.read_image('IMAGE'){_comment(record.get('image sha256'))}")
    if record.get("edits"):
        lines.append("# The image was edited before: see the notes.")
    call = f"camanim.{function}(model, image, {', '.join(arguments)})"
    if len(call) > 80:
        inner = "".join(f"    {argument},\n" for argument in ("model, image", *arguments))
        call = f"camanim.{function}(\n{inner})"
    lines.append(f"animation = {call}")
    lines += [_finding(finding) for finding in result.findings.values()]
    return "\n".join(lines)


def _comment(digest: Any) -> str:
    return f"  # SHA-256 {str(digest)[:16]}..." if digest else ""


def _model(record: Mapping[str, Any]) -> str:
    name = str(record.get("model", ""))
    digest = _comment(record.get("weights sha256"))
    source = name.removesuffix(" (random weights)")
    if not has_prefix(source):
        return f"model = ...{digest or '  #'} of the network {file_name(name)!r}"
    weights = ", weights=None" if record.get("weights") == "random" else ""
    return f"model = camanim.load_model({source!r}{weights}){digest}"


def _target(result: Result) -> str:
    described = result.provenance.get("target")
    described = described if isinstance(described, Mapping) else result.target.describe()
    kind, index = described.get("kind"), described.get("index")
    if kind == "class" and isinstance(index, int):
        if described.get("of", "logit") == "logit":
            return str(index)
        return f"camanim.targets.ClassTarget({index}, of={described['of']!r})"
    if kind == "contrast":
        return repr(str(described.get("name", result.target.name)))
    return "..."


def _window_settings(windows: Any) -> Iterator[str]:
    if isinstance(windows, Mapping):
        for name, setting in settings_of(WindowSettings).items():
            if name in windows and windows[name] != setting.default:
                yield f"{name}={windows[name]!r}"


def _settings(record: Mapping[str, Any]) -> Iterator[str]:
    for name, setting in settings_of(Settings).items():
        # The device of the run says nothing about the setting.
        if name not in record or name == "device":
            continue
        value = record[name]
        if name == "layers" and str(value).startswith("["):
            value = _literal(str(value))
        empty = value in (None, {}, [])
        if value != setting.default and not (empty and not setting.default):
            yield f"{name}={value!r}"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _finding(finding: Finding) -> str:
    kind = finding_kinds().get(finding.kind)
    settings = {} if kind is None else kind.settings
    arguments = [repr(finding.kind)]
    if kind is not None and kind.needs_mask:
        arguments.append("mask=...")
    for name, value in finding.parameters.items():
        default = settings[name].default if name in settings else None
        if value != (list(default) if isinstance(default, tuple) else default):
            arguments.append(f"{name}={value!r}")
    return f"animation.find({', '.join(arguments)})"
