"""What is installed, and who may read the file of the settings."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from ._checks import Finding
from ._variables import ENV_FILE

__all__ = ["program_findings"]


def program_findings(env_file: str | PathLike[str] | None = None) -> Iterator[Finding]:
    """Yield what is installed, and whether others may read the file of settings. Raises `OSError` for an absent one."""
    section = "Program"
    yield Finding(section, "Python", "ok", platform.python_version())
    for package in ("invoicing-async", "aiohttp"):
        try:
            yield Finding(section, package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(section, package, "note", "not installed as a package")
    fast = find_spec("uvloop") is not None
    yield Finding(
        section, "uvloop", "ok" if fast else "note", "used" if fast else "absent; invoicing-async[speed] has it"
    )
    if not (file := env_file or os.environ.get(ENV_FILE)):
        return
    shared = os.name == "posix" and Path(file).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    text = f"{file}: others on this machine may read it (chmod 600)" if shared else str(file)
    yield Finding(section, "settings file", "note" if shared else "ok", text)
