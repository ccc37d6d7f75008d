# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""An S3 endpoint: moto's server."""

from __future__ import annotations

import sys
from http import HTTPStatus

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.process.child import Program
from runqy_sandbox.process.net import ask

#: What moto takes for a key pair; it checks none.
ACCESS_KEY, SECRET_KEY, REGION = "sandbox", "sandbox", "us-east-1"


def s3_program(port: int) -> Program:
    """Return how to run moto on a port."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return Program("S3 server", command, lambda _: ask_s3(port))


def ask_s3(port: int) -> bool:
    """Tell whether moto answers."""
    return ask(port, "GET", "/moto-api/data.json") == HTTPStatus.OK


def create_bucket(port: int, name: str) -> None:
    """Create a bucket.

    Raises:
        SandboxError: moto refused, or did not answer.
    """
    status = ask(port, "PUT", f"/{name}")
    if status != HTTPStatus.OK:
        raise SandboxError(
            f"The sandbox cannot create the bucket '{name}': "
            f"S3 said {status or 'nothing'}. "
            "Names have 3 to 63 lower-case letters, digits, dots and hyphens."
        )


def aws_environment(port: int) -> dict[str, str]:
    """Return the variables with which boto3 finds moto."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
