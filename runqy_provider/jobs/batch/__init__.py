# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Many jobs of one task: what is left to do, its waits, and its manifest."""
