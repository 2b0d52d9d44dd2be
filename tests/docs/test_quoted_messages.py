"""What a reader looks up by its words is what livesr says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from livesr.live.quality import CHANNEL_RULES, FRAME_RULES, ChannelEvidence, Evidence

REPOSITORY = Path(__file__).parents[2]
HEADS = {"guide.md": ("it says",), "troubleshooting.md": ("you see",)}
"""First column of the tables of messages, by page."""


def quoted(page: str) -> list[str]:
    """Sentences in the first column of a page's tables of messages; "..." stands for anything."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    first = [
        row.split("|")[1]
        for rows in tables
        if rows[0].split("|")[1].strip() in HEADS[page]
        for row in rows[2:]
    ]
    return [q for cell in first for q in re.findall(r"`([^`]+)`", cell) if " " in q]


def pieces(quote: str) -> list[str]:
    return [piece.strip() for piece in quote.split("...") if len(piece.split()) > 1]


@cache
def said() -> str:
    """Every text in the source but docstrings, a NUL where a value is put in."""
    texts: list[str] = []
    for path in sorted((REPOSITORY / "src" / "livesr").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


@pytest.mark.parametrize("page", HEADS)
def test_messages_that_a_page_quotes_are_said(page: str) -> None:
    quotes, source = quoted(page), said()
    assert len(quotes) > 10
    assert not [(q, p) for q in quotes for p in pieces(q) if p not in source]


def test_every_reason_why_a_prediction_is_not_good_is_explained() -> None:
    frame, channel = Evidence(residual_limit=0.1), ChannelEvidence("ER")
    sentences = [rule.sentence(frame) for rule in FRAME_RULES]
    sentences += [rule.sentence(frame, channel) for rule in CHANNEL_RULES]
    explained = [pieces(q) for q in quoted("guide.md")]
    for sentence in sentences:
        assert any(all(p in sentence for p in parts) for parts in explained if parts), sentence
