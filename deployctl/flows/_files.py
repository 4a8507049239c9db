"""Reading the files that a person names: errors that say which file."""

from __future__ import annotations

from pathlib import Path

from deployctl.errors import ProjectError

MAX_BYTES = 200_000_000


def read_text(path: Path, *, what: str) -> str:
    """The text of a file.

    Raises:
        ProjectError: there is no such file, it is no text, or it is far too large (`file-unreadable`).
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ProjectError(f"the {what} is larger than {MAX_BYTES // 1_000_000} MB", code="file-unreadable", where=str(path), hint="cut it")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ProjectError(
            f"the {what} cannot be read", why=reason, code="file-unreadable", where=str(path), hint="name an existing text file"
        ) from error
