"""Reads the text pairs of an ONNX file without a library, for runtimes that do not hand them out."""

from collections.abc import Iterator
from pathlib import Path

from deploy.runners import ModelUnreadable

# Numbers of the fields in onnx.proto: ModelProto.metadata_props, and the key and value of its entries.
METADATA_PROPS, KEY, VALUE = 14, 1, 2


def properties_from_onnx(path: Path) -> dict[str, str]:
    """Key -> value. Raises ModelUnreadable where the file is missing or no protocol buffer."""
    try:
        entries = [dict(_fields(entry)) for number, entry in _fields(path.read_bytes()) if number == METADATA_PROPS]
        return {entry[KEY].decode(): entry.get(VALUE, b"").decode() for entry in entries}
    except FileNotFoundError as error:
        raise ModelUnreadable(f"no model at {path}") from error
    except (OSError, ValueError, LookupError) as error:
        raise ModelUnreadable(f"{path} is not an ONNX model") from error


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each length-delimited field of a protocol buffer; the others are passed over."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        match tag & 7:
            case 0:
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:
                size, at = _varint(message, at)
                yield tag >> 3, message[at : at + size]
                at += size
            case 5:
                at += 4
            case wire:
                raise ValueError(f"wire type {wire}")
    if at > len(message):
        raise ValueError("the last field is cut off")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next byte stands."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
