"""What a file that cannot be read as a corpus looks like, and what would help."""

from storage.corpus_files import bare, file_system, format_of

_SEEN = 4_096
"""Bytes of a file that are looked at."""

_BEGINS = {
    b"version https://git-lfs": "it is a pointer of Git LFS; get the file: git lfs pull",
    b"PK\x03\x04": "it looks like an Excel or a zip file; save it as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "it looks like an Excel file; save it as CSV in UTF-8",
    b"PAR1": "it looks like Parquet; name it .parquet",
    b"\x1f\x8b": "it looks like gzip; name it .gz",
    b"(\xb5/\xfd": "it looks like zstd; name it .zst",
    b"BZh": "it looks like bzip2; name it .bz2",
    b"\xfd7zXZ\0": "it looks like xz; name it .xz",
    b"ARROW1": "it looks like an Arrow file; write it as Parquet",
    b"Obj\x01": "it looks like Avro; write it as Parquet",
    b"\xff\xfe\0\0": "it looks like UTF-32; set corpus.encoding: utf-32",
    b"\xff\xfe": "it looks like UTF-16; set corpus.encoding: utf-16",
    b"\xfe\xff": "it looks like UTF-16; set corpus.encoding: utf-16",
}

_PAGES = (b"<!doctype html", b"<html")

_DELIMITERS = {",": '","', ";": '";"', "\t": '"\\t"', "|": '"|"'}

_ENDINGS = {
    b"PAR1": ".parquet",
    b"\x1f\x8b": ".gz",
    b"(\xb5/\xfd": ".zst",
    b"BZh": ".bz2",
    b"\xfd7zXZ\0": ".xz",
}
"""Endings that already say what the first bytes would."""


def advice(uri: str, delimiter: str, no_column: bool) -> str:
    """What a refused file looks like; empty if nothing can be seen.

    delimiter: the one that it was read with.  no_column: whether it is refused because it lacks a
    column.
    """
    try:
        fs, path = file_system(uri)
        with fs.open(path, "rb") as file:
            head = file.read(_SEEN)
    except Exception:  # the file is refused already, and this only helps
        return ""
    for begin, hint in _BEGINS.items():
        if head.startswith(begin):
            return "" if bare(uri).lower().endswith(_ENDINGS.get(begin, "\0")) else hint
    if head.lstrip()[:20].lower().startswith(_PAGES):
        return "it looks like a web page, such as one that asks to log in"
    if b"\0" in head[:2]:
        return "it looks like UTF-16; set corpus.encoding: utf-16-le or utf-16-be"
    if not no_column or format_of(uri) not in (".csv", ".tsv"):
        return ""
    first = head.split(b"\n")[0].decode("utf-8", "replace")
    most = max(_DELIMITERS, key=first.count)
    if first.count(most) > first.count(delimiter):
        return f"its fields seem to be separated by {_DELIMITERS[most]}; set corpus.delimiter"
    return "its first line is taken for the header"
