"""Checks the wording of docstrings, comments, messages and Markdown against scripts/words.txt.

``python scripts/check_words.py`` prints each match with its replacement, and fails if there is one.
``--all`` also reports the folders in `NOT_YET`, by folder, and does not fail for them. Knows
nothing of spelling, which codespell checks.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = Path(__file__).with_name("words.txt")
NEVER = (
    "docs/lab-log.md",  # a log is not rewritten
    "docs/settings.md",  # generated; the declarations are checked
    "docs/cli.md",
    "docs/python-api.md",
)
NOT_YET: tuple[str, ...] = ()
"""Folders and files that are not covered yet; shrink it as they are rewritten."""

CODE = re.compile(
    r"^```.*?^```$|<!-- benchmarks -->.*?<!-- /benchmarks -->|``[^`]+``|`[^`\n]+`|^ {4}[^\n]*$",
    re.MULTILINE | re.DOTALL,
)
"""Markdown that is no prose: code, and tables made from result files."""
INLINE_CODE = re.compile(r"``[^`]+``|`[^`\n]+`")


@dataclass(frozen=True)
class Rule:
    """A pattern to avoid, what to write instead, and an example that matches."""

    pattern: re.Pattern[str]
    instead: str
    example: str


@dataclass(frozen=True)
class Match:
    """A rule's match in a line of a file."""

    path: str
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.text}"; instead: {self.instead}'


def read_rules(path: Path = WORDS) -> list[Rule]:
    """The rules of a word list. Raise `ValueError` for a line without three columns."""
    rules = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pattern, instead, example = line.split(" -> ")
        # A line break between two words of a phrase is a space.
        spaced = pattern.replace(" ", r"\s+")
        rules.append(Rule(re.compile(spaced, re.IGNORECASE), instead, example))
    return rules


def prose(name: str, text: str) -> Iterator[tuple[int, str]]:
    """The parts of a file that people read, each with its first line."""
    if name.endswith(".md"):
        yield 1, CODE.sub(_blank, text)
        return
    if name.endswith(".py"):
        messages = not name.startswith("tests/")
        yield from (
            (line, INLINE_CODE.sub(_blank, part)) for line, part in _strings(text, messages)
        )
    yield from _comments(text) if name.endswith(".py") else _hash_comments(text)


def _blank(code: re.Match[str]) -> str:
    """As many lines, without words."""
    return "`" + "\n" * code[0].count("\n")


def _strings(text: str, messages: bool) -> Iterator[tuple[int, str]]:
    """Docstrings, and with ``messages`` every other string of at least three words."""
    tree = ast.parse(text)
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_message = messages and len(node.value.split()) >= 3
            if id(node) in docs or is_message:
                yield node.lineno, node.value


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """Comments, consecutive ones joined, so that a phrase may go over two lines."""
    first, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if lines and line != first + len(lines):
            yield first, "\n".join(lines)
            lines = []
        first = first if lines else line
        lines.append(token.string.lstrip("# "))
    if lines:
        yield first, "\n".join(lines)


def _hash_comments(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        _, mark, comment = line.partition("#")
        if mark:
            yield number, comment


def matches(name: str, text: str, rules: list[Rule]) -> list[Match]:
    """All matches in one file, in the order of its lines."""
    found = [
        Match(
            name, first + part.count("\n", 0, each.start()), " ".join(each[0].split()), rule.instead
        )
        for first, part in prose(name, text)
        for rule in rules
        for each in rule.pattern.finditer(part)
    ]
    return sorted(found, key=lambda match: match.line)


def files() -> list[str]:
    """The tracked files with prose."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.toml", "Makefile", ".ci/*"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in listed.stdout.splitlines() if name not in NEVER]


def main() -> int:
    """Print the matches; 1 if a covered file has any."""
    parser = argparse.ArgumentParser(description="Check the wording against scripts/words.txt.")
    parser.add_argument("--all", action="store_true", help="also report what is not covered yet")
    wants_all = parser.parse_args().all
    rules = read_rules()
    found = [m for f in files() for m in matches(f, (ROOT / f).read_text(encoding="utf-8"), rules)]
    covered = [match for match in found if not match.path.startswith(NOT_YET or ("\0",))]
    for match in found if wants_all else covered:
        print(match)
    if wants_all:
        for folder, n in Counter(_folder(match.path) for match in found).most_common():
            print(f"{n:5} {folder}", file=sys.stderr)
    return 1 if covered else 0


def _folder(path: str) -> str:
    parts = Path(path).parts
    return "/".join(parts[: 2 if parts[0] in ("batched_whisper", "tests", "docs") else 1])


if __name__ == "__main__":
    sys.exit(main())
