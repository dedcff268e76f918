"""An Airflow DAG that plans a model on a bitwright server.

The key is made of the DAG run and the task: when Airflow repeats the task, it finds the job that is running already.
"""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(dag_id="plan_model", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):
    BashOperator(
        task_id="plan",
        retries=3,
        bash_command=(
            'bitwright plan "$MODEL" --budget "$BUDGET" --metric weight-mse --no-confirm '
            '--server "$BITWRIGHT_SERVER" --idempotency-key "$RUN_ID" --out plan.json --json'
        ),
        env={"RUN_ID": "{{ run_id }}-{{ task.task_id }}"},
        append_env=True,
        skip_on_exit_code=None,
    )
