"""The pages: every block of code has a rule, and what they list equals the code."""

from __future__ import annotations

import inspect
import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import tomllib
from packaging.requirements import Requirement

from devtools import airflow_versions
from devtools.airflow_versions import VERSIONS, matrix
from devtools.docs import generated
from runqy_provider import errors
from runqy_provider.get_provider_info import get_provider_info
from runqy_provider.operators import _task
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.receiver.app import create_app
from runqy_provider.sensors.runqy import RunqySensor
from tests.support.doc_blocks import PAGES, ROOT, all_blocks, blocks_of, read_page

#: Each language, and what checks its blocks.
RULES = {
    "python": "test_docs_python.py",
    "console": "test_docs_commands.py",
    "shell": "test_docs_commands.py",
    "sql": "tests/integration/sql/test_docs_sql.py",
    "toml": "here",
    "ini": "here",
    "http": "here",
    "text": "here",
    "json": "test_redis_lookup.py",
    "dockerfile": "test_docs_deploy.py",
    "yaml": "test_docs_deploy.py",
    "redis": "tests/integration/inbox/test_tls_and_users.py",
}

#: The page whose blocks of text are diagrams.
ARCHITECTURE = "docs/explanation/architecture.md"
OPTIONS: dict[str, Any] = get_provider_info()["config"]["runqy"]["options"]


@pytest.mark.parametrize("page", PAGES)
def test_docs_block_has_a_rule(page: str) -> None:
    fences = re.findall(r"^ *```", read_page(page), re.MULTILINE)
    blocks = blocks_of(page)

    assert len(fences) == 2 * len(blocks)
    assert {block.language for block in blocks} <= set(RULES)
    assert all(
        block.page == "docs/how-to/sinks/sql.md"
        for block in blocks
        if block.language == "sql"
    )


@pytest.mark.parametrize("page", PAGES)
def test_docs_page_is_short_and_begins_with_its_title(page: str) -> None:
    lines = read_page(page).splitlines()

    assert lines[0].startswith("# ")
    assert len(lines) <= 210


@pytest.mark.parametrize("block", all_blocks("toml"), ids=str)
def test_docs_toml_block_names_the_entry_point(block: Any) -> None:
    from runqy_delivery import dispatch
    from runqy_provider.sinks import registry

    groups = tomllib.loads(block.code)["project"]["entry-points"]
    assert set(groups) <= {registry.GROUP, dispatch.GROUP}


@pytest.mark.parametrize("block", all_blocks("ini"), ids=str)
def test_docs_ini_block_has_options_of_the_provider(block: Any) -> None:
    parser = ConfigParser()
    parser.read_string(block.code)
    assert set(parser["runqy"]) <= set(OPTIONS)


@pytest.mark.parametrize("block", all_blocks("http"), ids=str)
def test_docs_http_block_has_all_routes_of_the_receiver(block: Any) -> None:
    async def lookup(_conn_id: str, *, refresh: bool = False) -> None:
        del refresh

    routes = {
        (method, getattr(route, "path", ""))
        for route in create_app(lookup).routes
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    found = re.findall(r"^(\w+) +\{callback_url\}([^\s?]+)", block.code, re.MULTILINE)
    assert set(found) == routes


@pytest.mark.parametrize(
    "block", [b for b in all_blocks("text") if b.page != ARCHITECTURE], ids=str
)
def test_docs_text_block_has_requirements(block: Any) -> None:
    for line in block.code.splitlines():
        assert line.startswith("# requirements.txt") or Requirement(line)


def test_docs_layers_equal_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    layers = contracts["importlinter"]["contracts"][0]["layers"]
    text = "\n".join(re.sub(r"runqy_provider\.|[()]", "", each) for each in layers)
    assert f"{text}\n" in [block.code for block in blocks_of(ARCHITECTURE)]


@pytest.mark.parametrize(
    ("page", "operator"), [("operator", RunqyOperator), ("sensor", RunqySensor)]
)
def test_docs_name_every_argument(page: str, operator: type) -> None:
    text = read_page(f"docs/reference/{page}.md")
    for name in inspect.signature(operator.__init__).parameters:  # type: ignore[misc]
        if name not in {"self", "kwargs", "__class__"}:
            assert f"`{name}`" in text or f"{name}=" in text


@pytest.mark.parametrize(
    "page", ["docs/explanation/security.md", "tests/regressions.md"]
)
def test_docs_named_tests_exist(page: str) -> None:
    text = read_page(page)
    named = set(re.findall(r"\b(test_\w+)`", text))
    with_file = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text))
    defined = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(
            r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE
        )
    }
    assert len(named) > 20
    assert named <= {name for _, name in defined}
    assert with_file <= defined


def test_docs_numbers_equal_the_code() -> None:
    text = read_page("docs/reference/operator.md")
    assert f"settle_seconds` ({OPTIONS['settle_seconds']['default']})" in text
    assert int(OPTIONS["xcom_limit"]["default"]) == 64 * 1024
    assert _task.DEFER_AFTER.total_seconds() == 1
    assert _task.DELIVERY_TIMEOUT.total_seconds() == 24 * 3600


def test_docs_name_every_metric() -> None:
    text = read_page("docs/how-to/monitor.md")
    package = ROOT / "runqy_provider"
    calls = r"metrics\(\)\.(?:incr|timing|gauge)\(\s*\"(runqy[\w.]+)\""
    sent = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(calls, path.read_text())
    }
    assert len(sent) > 5
    assert all(f"| `{name}` |" in text for name in sent)


def test_docs_configuration_has_every_field_and_option() -> None:
    fields = get_provider_info()["connection-types"][0]["conn-fields"]
    page = read_page("docs/reference/configuration.md")

    assert all(f"| `{name}` |" in page for name in [*fields, *OPTIONS, "host", "port"])


@pytest.mark.parametrize("page", generated.PAGES, ids=lambda page: page.name)
def test_docs_generated_part_equals_the_code(page: Path) -> None:
    text = page.read_text()

    assert text.count("<!-- generated: ") == text.count("<!-- end -->") > 0
    assert generated.generate(text) == text, "run: make docs-tables"


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", ".ci/run"])
def test_airflow_versions_stand_in_one_list_and_not_in_ci(path: str) -> None:
    text = (ROOT / path).read_text()

    assert "airflow" in text
    assert [each.name for each in VERSIONS if each.name in text] == []


@pytest.mark.parametrize(
    "test", [*airflow_versions.SHORT, *airflow_versions.SUITES], ids=str
)
def test_airflow_versions_suites_exist(test: str) -> None:
    """A short run tolerates all failures of a pre-release, also a missing test."""
    path, _, name = test.partition("::")

    assert (ROOT / path).exists()
    assert not name or f"def {name}(" in (ROOT / path).read_text()


def test_airflow_versions_matrix_has_a_pre_release_that_may_fail() -> None:
    cells = matrix()

    assert [cell["airflow"] for cell in cells if cell["may_fail"]] == ["3.4.0b2"]
    assert {"airflow": "3.0.6", "python": "3.10", "may_fail": False} in cells


@pytest.mark.parametrize(
    ("arguments", "status"),
    [("3.4.0b2 --short", 0), ("3.4.0b2", 1), ("3.0.6 --short", 1)],
)
def test_airflow_versions_only_a_short_run_tolerates_a_pre_release(
    arguments: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(airflow_versions, "find_python", lambda _: "python")
    monkeypatch.setattr(
        airflow_versions, "make_environment", lambda *_: Path("/bin/false")
    )
    monkeypatch.setattr("sys.argv", ["airflow_versions", *arguments.split()])

    assert airflow_versions.main() == status
    assert "FAILED with status 1" in capsys.readouterr().out


def test_generate_outdated_part_is_written_again() -> None:
    text = read_page("docs/reference/configuration.md").replace("`xcom_limit`", "``")

    assert "| `xcom_limit` |" in generated.generate(text)


@pytest.mark.parametrize("page", PAGES)
def test_docs_page_has_no_syntax_of_the_site_only(page: str) -> None:
    """Code hosts show it as plain text: directives, notes, tabs, snippets."""
    text = _prose(page)

    assert re.findall(r"^ *(?::::|!!!|\?\?\?|===|--8<--).*", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES)
def test_docs_link_within_the_repository_leads_to_a_heading(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        path, _, anchor = link.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), link
        if anchor and found.suffix == ".md":
            assert anchor in _anchors(found.read_text()), link


def _prose(page: str) -> str:
    """Return the text of a page without its blocks of code."""
    return re.sub(
        r"^ *```.*?^ *```$", "", read_page(page), flags=re.MULTILINE | re.DOTALL
    )


def _anchors(text: str) -> set[str]:
    """Return what a code host makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


def test_docs_table_of_errors_has_every_error() -> None:
    text = read_page("docs/reference/operator.md")
    table = text.partition("| error | when |")[2].partition("\n\n")[0]
    named = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\|[^|]+\|", table, re.MULTILINE)))
    )
    classes = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }
    assert named == classes - {"RunqyError"}


#: ``path.py`` (``name``), as CONTRIBUTING names a place in the code.
PLACE = re.compile(r"`([\w./]+\.py)` \(`(\w+)`\)")


def _rows_of_where_is_what() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Where is what\n")[2].partition("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", _rows_of_where_is_what())
def test_contributing_row_names_a_file_and_a_name_in_it(row: str) -> None:
    places = PLACE.findall(row)

    assert places, "name a file and, in brackets, something that it defines"
    for path, name in places:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"\b{name}\b", text), f"{path} has no {name}"


def test_architecture_main_path_names_ten_files_that_are_there() -> None:
    text = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    table = text.partition("## The main path")[2].partition("\n## ")[0]
    files = re.findall(r"^\| \d+ \| `([\w/.]+)`", table, re.MULTILINE)

    assert len(files) == 10
    assert [
        file for file in files if not (ROOT / "runqy_provider" / file).exists()
    ] == []


def test_servers_of_the_tests_are_the_same_wherever_they_are_named() -> None:
    command = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    servers = re.findall(r"apt-get install (.*)", command)[0].split()

    assert "postgresql" in servers
    for name in ("README.md", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert [each for each in servers if each not in text] == [], name
