# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""An S3 endpoint: moto's server."""

from __future__ import annotations

import sys
from http import HTTPStatus

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.process.child import Program
from runqy_sandbox.process.net import HOST, http_status

#: moto accepts every key pair.
ACCESS_KEY, SECRET_KEY, REGION = "sandbox", "sandbox", "us-east-1"


def s3_program(port: int) -> Program:
    """Return the program that runs moto's server on a port."""
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    return Program("S3 server", command, lambda _: _is_ready(port))


def s3_url(port: int) -> str:
    """Return the endpoint URL of the S3 server on a port."""
    return f"http://{HOST}:{port}"


def create_bucket(port: int, name: str) -> None:
    """Create a bucket.

    Raises:
        SandboxError: The S3 server rejected the request, or did not respond.
    """
    status = http_status(port, "PUT", f"/{name}")
    if status != HTTPStatus.OK:
        raise SandboxError(
            f"The sandbox cannot create the bucket '{name}': S3 responded with "
            f"{status or 'nothing'}. A name has 3 to 63 lower-case letters, digits, "
            "dots and hyphens."
        )


def aws_environment(port: int) -> dict[str, str]:
    """Return the environment variables with which boto3 finds the S3 server."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": s3_url(port),
    }


def _is_ready(port: int) -> bool:
    return http_status(port, "GET", "/moto-api/data.json") == HTTPStatus.OK
