"""The image and the Helm values of the page *Deploy* have a valid form."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from airflow.configuration import conf
from packaging.requirements import Requirement

from devtools.airflow_versions import VERSIONS
from runqy_provider.connections import DEFAULT_CONN_ID
from tests.support.doc_blocks import ROOT, all_blocks, read_page

PAGE = "docs/how-to/deploy.md"


def test_docs_image_is_of_a_tested_airflow_and_installs_the_provider() -> None:
    [block] = all_blocks("dockerfile")
    image, command = block.code.splitlines()

    version = image.removeprefix("FROM apache/airflow:")
    assert version in {each.name for each in VERSIONS if not each.may_fail}
    words = command.removeprefix("RUN pip install --no-cache-dir ").split()
    # The image of Airflow has this variable.
    named = [word.strip('"').replace("${AIRFLOW_VERSION}", version) for word in words]
    assert [str(Requirement(word)) for word in named] == [
        f"apache-airflow=={version}",
        "airflow-provider-runqy",
    ]


def test_docs_helm_values_name_connections_options_and_the_image() -> None:
    [block] = all_blocks("yaml")
    values: dict[str, Any] = yaml.safe_load(block.code)

    assert f"FROM apache/airflow:{values['airflowVersion']}" in read_page(PAGE)
    names = {each["envName"].removeprefix("AIRFLOW_CONN_") for each in values["secret"]}
    assert names == {DEFAULT_CONN_ID.upper(), "REDIS_DEFAULT"}
    keys = {each["secretKey"] for each in values["secret"]}
    assert keys == set(re.findall(r"--from-file=(\w+)=", read_page(PAGE)))
    for section, options in values["config"].items():
        for name, value in options.items():
            default = conf.get(section, name)
            assert float(default) == value, f"[{section}] {name} has another default"
    assert values["triggerer"]["replicas"] > 1


@pytest.mark.parametrize("name", re.findall(r"`(tests/[\w/.:]+)`", read_page(PAGE)))
def test_docs_table_of_tests_names_tests_that_exist(name: str) -> None:
    path, _, test = name.partition("::")

    assert (ROOT / path).exists()
    assert f"def {test}(" in (ROOT / path).read_text() if test else True
