# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated: use ``python -m runqy_sandbox``."""

from __future__ import annotations

import sys
import warnings

from runqy_sandbox.__main__ import main

if __name__ == "__main__":
    warnings.warn(
        "python -m runqy_provider.sandbox is deprecated: use python -m runqy_sandbox.",
        DeprecationWarning,
        stacklevel=1,
    )
    sys.exit(main())
