"""Writes files whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.runners import DeployError


def write_at_once(path: Path, content: bytes) -> None:
    """At once: what stands at `path` is whole at any moment. Raises DeployError where it cannot be written."""
    with _beside(path) as temporary:
        temporary.write_bytes(content)
        temporary.replace(path)


def check_writable(path: Path) -> None:
    """Raises DeployError, before work is done for it, where no file can be written at `path`."""
    if path.is_dir():
        raise DeployError(f"cannot write {path}: it is a folder")
    with _beside(path) as temporary:
        temporary.touch()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A fresh name beside `path`; what stands there afterwards is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
    except OSError as error:
        raise DeployError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
