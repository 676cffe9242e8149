"""Names in the package: one public class name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "batched_whisper"


def duplicate_classes(sources: dict[str, str]) -> dict[str, list[str]]:
    """Public class names that several modules define at top level, with these modules."""
    modules = defaultdict(list)
    for module, source in sources.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(module)
    return {name: sorted(found) for name, found in modules.items() if len(found) > 1}


def test_two_public_classes_never_have_the_same_name() -> None:
    sources = {
        path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8")
        for path in PACKAGE.rglob("*.py")
    }
    assert duplicate_classes(sources) == {}


def test_a_duplicate_class_name_is_found_and_private_or_nested_ones_are_allowed() -> None:
    sources = {
        "a.py": "class Same: ...\nclass _Private: ...\nclass Outer:\n    class Inner: ...",
        "b.py": "class Same: ...\nclass _Private: ...",
        "c.py": "class Inner: ...",
    }
    assert duplicate_classes(sources) == {"Same": ["a.py", "b.py"]}
