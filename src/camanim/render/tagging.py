"""Tags of GIF and PNG files, which ffmpeg does not write."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from pathlib import Path

from camanim.render.formats import Tags, as_text, cleaned

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COPIED = 2**20


def add_tags(path: Path, suffix: str, tags: Tags) -> None:
    """Insert tags into a complete GIF or APNG file; other formats have them already."""
    tags = cleaned(tags)
    if suffix == ".gif" and tags:
        _insert(path, _end_of_gif_header(path), _gif_comment(tags))
    elif suffix == ".apng" and tags:
        # After the signature and the header (IHDR, with 13 bytes).
        chunks = b"".join(_text_chunk(key, text) for key, text in tags.items())
        _insert(path, len(_PNG_SIGNATURE) + 12 + 13, chunks)


def is_complete(path: Path, suffix: str) -> bool:
    """Return whether a movie is complete, as far as its format allows to tell."""
    size = path.stat().st_size
    if suffix == ".mp4":
        return is_complete_mp4(path)
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(max(0, size - 12))
        tail = file.read()
    if suffix == ".gif":
        return head[:3] == b"GIF" and tail.endswith(b";")
    if suffix == ".apng":
        return head == _PNG_SIGNATURE and b"IEND" in tail
    return head[:4] == b"\x1a\x45\xdf\xa3"


def is_complete_mp4(path: Path) -> bool:
    """Return whether an mp4 file is complete.

    An mp4 file is a sequence of boxes, each preceded by its length. ffmpeg writes the length of the box
    with the frames (mdat) and the index (moov) last.
    """
    position, kinds, size = 0, set(), path.stat().st_size
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8:
                return False
            kinds.add(kind)
            position += length
    return position == size and {b"moov", b"mdat"} <= kinds


def _end_of_gif_header(path: Path) -> int:
    """Return the position after the header, the screen descriptor and the common palette of a GIF."""
    with path.open("rb") as file:
        head = file.read(13)
    packed = head[10]
    return 13 + (3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0)


def _gif_comment(tags: Tags) -> bytes:
    text = "\n".join((tags.get("Title", ""), as_text(tags))).strip().encode()
    blocks = [text[k : k + 255] for k in range(0, len(text), 255)]
    return b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def _text_chunk(key: str, text: str) -> bytes:
    # iTXt is UTF-8: keyword, not compressed, no language, no translated keyword.
    body = b"iTXt" + key.encode("latin-1", "replace") + b"\0\0\0\0\0" + text.encode()
    return len(body[4:]).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)


def _insert(path: Path, position: int, content: bytes) -> None:
    """Insert bytes into a file, in place: it is the part file, whose lock belongs to this inode."""
    with path.open("r+b") as file, tempfile.TemporaryFile(dir=path.parent) as tail:
        file.seek(position)
        shutil.copyfileobj(file, tail, _COPIED)
        file.seek(position)
        file.truncate()
        file.write(content)
        tail.seek(0)
        shutil.copyfileobj(tail, file, _COPIED)
