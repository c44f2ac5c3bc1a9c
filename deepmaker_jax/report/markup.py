"""The few pieces of HTML that every part of the page is made of."""

import html
from typing import Any

from deepmaker_jax.report import text


def escape(value: Any, *, limit: int = 300) -> str:
    """Returns foreign text for HTML, attributes included, without control characters."""
    return html.escape(text.plain(value, limit=limit))


def section(title: str, note: str, content: str) -> str:
    """Returns a titled block; `title` and `note` are our own words, `content` is HTML."""
    return f'<section><h2>{title}</h2><p class="note">{note}</p>{content}</section>'


def table(head: list[str], body: list[tuple[str, list[str]]], *, css: str = "full") -> str:
    """Returns a table of cells that are HTML already; each row comes with its class."""
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join(
        f'<tr class="{kind}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for kind, cells in body
    )
    heads = f"<thead><tr>{heads}</tr></thead>" if head else ""
    return f'<div class="scroll"><table class="{css}">{heads}<tbody>{lines}</tbody></table></div>'
