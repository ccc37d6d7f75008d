# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make release-check``: build the distributions, install each wheel, and try it.

Each wheel is installed in an empty virtual environment. There, ``smoke_test.py`` is run
in a temporary directory and in Python's isolated mode, so that it imports what is
installed and not what is in the checkout.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
UV = ROOT / ".tools" / "bin" / "uv"
CONSTRAINTS = ROOT / "constraints.txt"

#: Folders of the repository that must not be in a wheel.
NOT_SHIPPED = frozenset({"dags", "devtools", "tests"})

SMOKE_TEST = Path(__file__).with_name("smoke_test.py")


class ReleaseError(Exception):
    """A check failed; the message says which one and why."""


@dataclass(frozen=True)
class Package:
    """One distribution of this repository.

    Attributes:
        name: Its name.
        module: The package that it installs.
        source: The folder of its ``pyproject.toml``.
        options: Options of ``uv pip install``.
        extras: Its extras that are installed for a second import of all modules.
        optional: Libraries that it imports and does not require. A module may fail to
            import because one of these is missing.
    """

    name: str
    module: str
    source: Path
    options: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()

    @property
    def file_prefix(self) -> str:
        """The name as it is in the names of files."""
        return self.name.replace("-", "_")

    @property
    def wheel(self) -> Path:
        """The wheel that ``build`` made."""
        [wheel] = DIST.glob(f"{self.file_prefix}-*.whl")
        return wheel

    @property
    def version(self) -> str:
        """The version of that wheel."""
        return self.wheel.name.split("-")[1]


def check_release(tag: str | None) -> None:
    """Build all distributions, and check the files and the installed packages.

    Args:
        tag: The git tag that is to be released, if any.

    Raises:
        ReleaseError: A check failed; later checks were not made.
    """
    build()
    check_versions(tag)
    check_metadata()
    for package in PACKAGES:
        check_contents(package)
    for package in PACKAGES:
        check_installed(package)


def build() -> None:
    """Build a source distribution of each package, and a wheel from that."""
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        _run([UV, "build", "--out-dir", DIST, package.source])
    for path in sorted(DIST.glob("*-*")):
        _say(f"built {path.relative_to(ROOT)} ({path.stat().st_size:,} bytes)")


def check_versions(tag: str | None) -> None:
    """Check that all packages have one version, and that the changelog has it.

    Args:
        tag: The git tag of the release, if any: ``v`` and the version.
    """
    versions = {package.name: package.version for package in PACKAGES}
    version = next(iter(versions.values()))
    if set(versions.values()) != {version}:
        raise ReleaseError(
            f"The packages have different versions: {versions}. Change __version__."
        )
    if f"\n## [{version}]" not in (ROOT / "CHANGELOG.md").read_text():
        raise ReleaseError(f"CHANGELOG.md has no heading '## [{version}]'. Add one.")
    if tag is not None and tag != f"v{version}":
        raise ReleaseError(
            f"The tag is {tag}, but the version is {version}: the tag must be "
            f"v{version}."
        )
    _say(f"version {version} in all packages and in CHANGELOG.md")


def check_metadata() -> None:
    """Check the metadata of the distributions with twine."""
    files = sorted(DIST.glob("*-*"))
    _run([sys.executable, "-m", "twine", "check", "--strict", *files])
    _say(f"twine check: {len(files)} distributions passed")


def check_contents(package: Package) -> None:
    """Check that a wheel has ``py.typed``, and no file of a test or a tool."""
    with zipfile.ZipFile(package.wheel) as wheel:
        names = [PurePosixPath(name) for name in wheel.namelist()]
    if PurePosixPath(package.module, "py.typed") not in names:
        raise ReleaseError(f"{package.wheel.name} has no {package.module}/py.typed.")
    folders = {package.module, f"{package.file_prefix}-{package.version}.dist-info"}
    for name in names:
        if name.parts[0] not in folders or NOT_SHIPPED.intersection(name.parts):
            raise ReleaseError(f"{package.wheel.name} has the file {name}.")
    _say(f"{package.wheel.name}: {len(names)} files, py.typed, no tests and no tools")


def check_installed(package: Package) -> None:
    """Install a wheel in an empty environment, and try it there."""
    with tempfile.TemporaryDirectory(prefix="runqy-release-") as directory:
        environment = Path(directory, "environment")
        _run([UV, "venv", "--quiet", "--python", sys.executable, environment])
        _install(package, environment)
        _try(package, environment, *sorted(package.optional))
        if package.extras:
            _install(package, environment, f"[{','.join(package.extras)}]")
            _try(package, environment, "--imports-only")


def _install(package: Package, environment: Path, extras: str = "") -> None:
    requirement = f"{package.name}{extras} @ {package.wheel.as_uri()}"
    # Wheels of this version may be in uv's cache from an earlier run.
    refresh = [f"--refresh-package={own.name}" for own in PACKAGES]
    options = [f"--python={environment}", *refresh, *package.options]
    _run([UV, "pip", "install", *options, requirement])
    _run([UV, "pip", "check", f"--python={environment}"])
    listed = _run([UV, "pip", "list", f"--python={environment}", "--format=freeze"])
    count = len(listed.splitlines())
    _say(f"{package.name}{extras}: installed; distributions there: {count}")


def _try(package: Package, environment: Path, *arguments: str) -> None:
    """Run the tests of an installed package with the Python that has it."""
    work = environment.parent / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [environment / "bin" / "python", "-I", SMOKE_TEST, package.name, *arguments],
        cwd=work,
        env=_environment(AIRFLOW_HOME=str(environment.parent / "airflow")),
        check=False,
    )
    if done.returncode:
        raise ReleaseError(f"The installed {package.name} does not work; see above.")


def _run(command: Sequence[str | Path]) -> str:
    """Run a program and return what it wrote to stdout.

    Raises:
        ReleaseError: It failed; the message has its output.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=_environment(),
        check=False,
    )
    if done.returncode:
        line = " ".join(map(str, command))
        output = f"{done.stdout}{done.stderr}"
        raise ReleaseError(f"'{line}' returned {done.returncode}:\n{output}")
    return done.stdout


def _environment(**variables: str) -> dict[str, str]:
    """Return the environment without what configures Python or Airflow."""
    prefixes = ("AIRFLOW", "PYTHON", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    return {**kept, **variables}


def _say(line: str) -> None:
    print(line, flush=True)


FIND_LINKS = ("--find-links", str(DIST))

#: In the order of their release: the later ones require the earlier ones.
PACKAGES = (
    Package(
        "runqy-delivery",
        "runqy_delivery",
        ROOT / "runqy_delivery",
    ),
    Package(
        "runqy-sandbox",
        "runqy_sandbox",
        ROOT / "runqy_sandbox",
        options=FIND_LINKS,
        # Its pytest plugin.
        optional=frozenset({"pytest"}),
    ),
    Package(
        "airflow-provider-runqy",
        "runqy_provider",
        ROOT,
        options=(*FIND_LINKS, "--constraints", str(CONSTRAINTS)),
        extras=("abfs", "amqp", "gs", "openlineage", "postgres", "sandbox"),
        optional=frozenset(
            {
                "aio_pika",
                "airflow.providers.openlineage",
                "obstore",
                "runqy_sandbox",
            }
        ),
    ),
)


def main() -> int:
    """Run the checks, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--tag",
        default=os.environ.get("RELEASE_TAG") or None,
        help="the git tag of the release, such as v1.2.3 (default: $RELEASE_TAG)",
    )
    options = parser.parse_args()
    try:
        check_release(options.tag)
    except ReleaseError as error:
        sys.stderr.write(f"release-check failed: {error}\n")
        return 1
    _say("release-check passed: all packages can be released.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
