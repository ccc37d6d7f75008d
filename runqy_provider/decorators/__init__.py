# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task decorators: ``@task.runqy`` and ``@task.runqy_batch``."""
