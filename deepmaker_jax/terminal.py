"""Lines for people: whatever a text holds, it stays one line and commands no terminal."""

from typing import Any


def plain(value: Any, *, limit: int = 300) -> str:
    """Returns `value` on one line, unprintable characters as escapes such as \\x1b.

    That covers terminal escapes, line breaks, bidirectional overrides and lone
    surrogates. Text past `limit` characters is cut.
    """
    text = str(value)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    short = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return short if code < 0x10000 else f"\\U{code:08x}"


def say(words: str) -> None:
    """Prints one line on stdout, at once."""
    print(plain(words, limit=5000), flush=True)
