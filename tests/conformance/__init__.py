# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded exchanges of a real runqy, replayed with the sandbox."""

import pytest

# For the details of a failed assertion, as in test modules.
pytest.register_assert_rewrite("tests.conformance.player")
