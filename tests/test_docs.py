"""What the pages show runs: the Python blocks of README.md and docs/, and links lead somewhere.

Blocks of one page run in order and share their names, in an empty folder.
"""

import importlib
import os
import pkgutil
import re
from pathlib import Path

import pytest

import eqkernel
from eqkernel import connections, reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
MODULES = ["eqkernel", *(m.name for m in pkgutil.walk_packages(eqkernel.__path__, "eqkernel."))]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)|!\[[^\]]*\]\(([^)\s]+)\)")


def python_blocks(page):
    """(first line, code) of each fenced Python block of a page."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```python\s*\n(.*?)^```\s*$", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start(1)].count("\n"), match[1]


@pytest.fixture
def as_it_was():
    """Pages may show how to register a connection: take it out of the registry and the reference afterwards."""
    kept = [(place, dict(place)) for place in (connections.CONNECTIONS, vars(reference))]
    yield
    for place, content in kept:
        for name in set(place) - set(content):
            del place[name]
        place.update(content)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, as_it_was):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = {"__name__": "__main__"}
    for line, code in python_blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), names)  # errors show the page's own line


def test_the_readme_shows_python():
    assert list(python_blocks(ROOT / "README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        target = match[1] or match[2]
        if "://" not in target and not target.startswith("mailto:"):
            assert os.path.exists(page.parent / target), f"{page.name} links to {target}"


def test_commands_of_bench_that_a_page_names_are_there_and_explain_themselves():
    """One that read no argument would measure for minutes when asked for help."""
    named = {name for page in PAGES for name in re.findall(r"python -m bench\.(\w+)", page.read_text(encoding="utf-8"))}
    commands = {
        path.stem: text
        for path in (ROOT / "bench").glob("[!_]*.py")
        if 'if __name__ == "__main__"' in (text := path.read_text(encoding="utf-8"))
    }
    assert named and named <= set(commands)
    for name, text in commands.items():
        assert "parse_args(" in text or "@click.command" in text, f"bench/{name}.py has no --help"


def test_every_module_says_what_it_is():
    assert len(MODULES) > 10
    for name in MODULES:
        if not name.endswith("__main__"):
            assert importlib.import_module(name).__doc__, name
