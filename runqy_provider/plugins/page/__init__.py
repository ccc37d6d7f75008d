# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The page in Airflow's UI: connections, queues, waiting tasks and deliveries."""
