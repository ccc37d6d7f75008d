# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make release-check``: build the distributions, install each wheel, and try it.

Each wheel is installed in an empty environment. There, this file runs again, in
Python's isolated mode, so that it imports what is installed and not what is in the
checkout. So it imports only the standard library at the top.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from importlib import metadata, resources
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
UV = ROOT / ".tools" / "bin" / "uv"

#: Each distribution: its folder, and its extras. The later ones require the earlier.
PACKAGES = {
    "runqy-delivery": ("runqy_delivery", ""),
    "runqy-sandbox": ("runqy_sandbox", ""),
    "airflow-provider-runqy": (".", "[abfs,amqp,gs,openlineage,postgres,sandbox]"),
}

#: Libraries that a package imports and does not require: a module may lack one of them.
OPTIONAL = (
    *("aio_pika", "airflow.providers.openlineage", "obstore", "pytest"),
    "runqy_sandbox.",
)

#: Folders of the repository that must not be in a wheel.
NOT_SHIPPED = {"dags", "devtools", "tests"}


class ReleaseError(Exception):
    """A check failed; the message says which one and why."""


def check_release(tag: str | None) -> None:
    """Build all distributions, and check the files and the installed packages.

    Args:
        tag: The git tag that is to be released, if any: ``v`` and the version.

    Raises:
        ReleaseError: A check failed; later checks were not made.
    """
    shutil.rmtree(DIST, ignore_errors=True)
    for folder, _ in PACKAGES.values():
        _run(UV, "build", "--quiet", "--out-dir", DIST, ROOT / folder)
    check_versions(tag)
    _run(sys.executable, "-m", "twine", "check", "--strict", *DIST.glob("*-*"))
    for package in PACKAGES:
        check_contents(wheel_of(package))
    for package, (_, extras) in PACKAGES.items():
        for extra in ("", extras) if extras else ("",):
            check_installed(package, extra)


def wheel_of(package: str) -> Path:
    """Return the wheel of a package that was built."""
    [wheel] = DIST.glob(f"{package.replace('-', '_')}-*.whl")
    return wheel


def check_versions(tag: str | None) -> None:
    """Check that all packages have one version, that of the changelog and the tag."""
    versions = {name: wheel_of(name).name.split("-")[1] for name in PACKAGES}
    version = versions["runqy-delivery"]
    if set(versions.values()) != {version}:
        raise ReleaseError(
            f"The packages have different versions: {versions}. Change __version__."
        )
    if f"\n## [{version}]" not in (ROOT / "CHANGELOG.md").read_text():
        raise ReleaseError(f"CHANGELOG.md has no heading '## [{version}]'. Add one.")
    if tag is not None and tag != f"v{version}":
        raise ReleaseError(f"The tag is {tag}. It must be v{version}, as the version.")


def check_contents(path: Path) -> None:
    """Check that a wheel has ``py.typed``, and no file of a test or a tool."""
    with zipfile.ZipFile(path) as wheel:
        names = [PurePosixPath(name) for name in wheel.namelist()]
    if not any(name.name == "py.typed" for name in names):
        raise ReleaseError(f"{path.name} has no py.typed.")
    if wrong := [str(name) for name in names if NOT_SHIPPED.intersection(name.parts)]:
        raise ReleaseError(f"{path.name} has files that are not for users: {wrong}.")


def check_installed(package: str, extras: str) -> None:
    """Install a wheel in an empty environment, and try it there."""
    with tempfile.TemporaryDirectory(prefix="runqy-release-") as directory:
        python = Path(directory, "venv", "bin", "python")
        _run(UV, "venv", "--quiet", "--python", sys.executable, python.parents[1])
        # Wheels of this version may be in uv's cache from an earlier run.
        refresh = [f"--refresh-package={name}" for name in PACKAGES]
        options = [*refresh, f"--find-links={DIST}"]
        options.append(f"--constraints={ROOT / 'constraints.txt'}")
        wheel = f"{package}{extras} @ {wheel_of(package).as_uri()}"
        _run(UV, "pip", "install", "--python", python, *options, wheel)
        _run(UV, "pip", "check", "--python", python)
        print(_run(python, "-I", __file__, "--try", package, cwd=directory), end="")


def _run(*command: str | Path, cwd: str | Path = ROOT) -> str:
    """Run a program without what configures Python or Airflow; return its output.

    Raises:
        ReleaseError: It failed; the message has its output.
    """
    prefixes = ("AIRFLOW", "PYTHON", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**kept, "AIRFLOW_HOME": str(cwd)},
        check=False,
    )
    if done.returncode:
        line = " ".join(map(str, command))
        output = f"{done.stdout}{done.stderr}"
        raise ReleaseError(f"'{line}' returned {done.returncode}:\n{output}")
    return done.stdout


def try_package(package: str) -> None:
    """Import all modules of an installed package, and use it for what it is for."""
    files = [PurePosixPath(file) for file in metadata.files(package) or ()]
    names = [".".join(f.with_suffix("").parts) for f in files if f.suffix == ".py"]
    skipped = [name for name in names if not _is_imported(name)]
    {
        "runqy-delivery": try_delivery,
        "runqy-sandbox": try_sandbox,
        "airflow-provider-runqy": try_provider,
    }[package]()
    version = metadata.version(package)
    print(f"{package} {version}: {len(names)} modules, without an extra: {skipped}")


def _is_imported(name: str) -> bool:
    """Import a module of the environment; return False if an optional library lacks."""
    try:
        module = importlib.import_module(name.removesuffix(".__init__"))
    except ModuleNotFoundError as error:
        if f"{error.name}.".startswith(OPTIONAL) and not name.startswith(
            f"{error.name}."
        ):
            return False
        raise
    if not Path(module.__file__ or "").is_relative_to(sys.prefix):
        raise ReleaseError(f"{name} was imported from {module.__file__}.")
    return True


def try_delivery() -> None:
    """Check that it comes alone, and that a plain payload passes through."""
    installed = [found.metadata["Name"] for found in metadata.distributions()]
    delivers = importlib.import_module("runqy_delivery").delivers
    returned = delivers(lambda payload: payload)({"input": 1})
    if (installed, returned) != (["runqy-delivery"], {"input": 1}):
        raise ReleaseError(f"Installed: {installed}; @delivers returned {returned}.")


def try_sandbox() -> None:
    """Start a sandbox, and run a job of its queue ``echo``."""
    queues = importlib.import_module("runqy_sandbox.echo").ECHO_QUEUES
    start = importlib.import_module("runqy_sandbox.sandbox").Sandbox
    with start(queues) as sandbox:
        body = json.dumps({"queue": "echo", "data": {"input": 1}}).encode()
        headers = {"X-API-Key": sandbox.client_key}
        url = f"{sandbox.server_url}/queue"
        request = urllib.request.Request(f"{url}/add", body, headers)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - same
            job_id = json.load(answer)["info"]["id"]
        with urllib.request.urlopen(f"{url}/{job_id}?wait=true", timeout=60) as answer:  # noqa: S310 - same
            state = json.load(answer)["Info"]["state"]
    if state != "completed":
        raise ReleaseError(f"The job of the queue echo is {state}, not completed.")


def try_provider() -> None:
    """Make an operator, and check that Airflow finds the provider and its plugin."""
    operators = importlib.import_module("runqy_provider.operators.runqy")
    operators.RunqyOperator(task_id="job", runqy_queue="inference", payload={})
    static = resources.files("runqy_provider.plugins.page") / "static"
    if not (static / "index.html").is_file():
        raise ReleaseError("The files of the page in Airflow's UI are missing.")
    manager = importlib.import_module("airflow.providers_manager").ProvidersManager()
    if "airflow-provider-runqy" not in manager.providers:
        raise ReleaseError("Airflow does not list airflow-provider-runqy.")
    [plugin] = metadata.entry_points(group="airflow.plugins", name="runqy")
    plugin.load()


def main() -> int:
    """Run the checks, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--tag",
        default=os.environ.get("RELEASE_TAG") or None,
        help="the git tag of the release, such as v1.2.3 (default: $RELEASE_TAG)",
    )
    parser.add_argument("--try", choices=PACKAGES, dest="package")
    options = parser.parse_args()
    try:
        if options.package:
            try_package(options.package)
        else:
            check_release(options.tag)
            print("release-check passed: all packages can be released.")
    except ReleaseError as error:
        sys.stderr.write(f"release-check failed: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
