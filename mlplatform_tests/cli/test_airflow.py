"""`mlplatform generate-dags`: its files are imported with stand-ins for Airflow, and in a real one.

The real one is opt-in: MLPLATFORM_TEST_AIRFLOW names the Python of an environment with apache-airflow and the
providers cncf-kubernetes, docker and (Airflow 3) standard.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from jinja2 import Environment, StrictUndefined

from mlplatform.domain.batch.airflow import dag_file
from mlplatform.domain.batch.manifest import Manifest
from mlplatform_tests.cli.projects import SERVING, TRAINING, call, make, replace

AIRFLOW = os.environ.get("MLPLATFORM_TEST_AIRFLOW")
EXECUTORS = ("local", "docker", "kubernetes")
OPERATORS = {"local": "BashOperator", "docker": "DockerOperator", "kubernetes": "KubernetesPodOperator"}
SECRETS = ("PG_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")
KUBERNETES = """        type: kubernetes
        config:
          namespace: mbt-pipelines
          service_account: mbt-runner
"""
CADENCES = {"hourly": "@hourly", "daily": "@daily", "weekly": "@weekly", "monthly": "@monthly"}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    return make(tmp_path, monkeypatch)


class Dag:
    """Stands in for Airflow's DAG: keeps its arguments and its tasks."""

    open_: ClassVar[list[Dag]] = []

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.tasks: dict[str, Task] = {}

    def __enter__(self) -> Dag:
        self.open_.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.open_.pop()


class Task:
    """Stands in for an operator: keeps its arguments and what it waits for."""

    def __init__(self, task_id: str, **arguments: Any) -> None:
        self.task_id, self.arguments, self.upstream = task_id, arguments, set[str]()
        Dag.open_[-1].tasks[task_id] = self

    def __rshift__(self, other: Task) -> Task:
        other.upstream.add(self.task_id)
        return other

    def __rrshift__(self, others: list[Task]) -> Task:
        self.upstream.update(other.task_id for other in others)
        return self


def module(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    made = ModuleType(name)
    vars(made).update(attributes)
    monkeypatch.setitem(sys.modules, name, made)


def run_file(monkeypatch: pytest.MonkeyPatch, path: Path, version: int) -> Dag:
    """The DAG of a generated file, imported as Airflow of this version would offer its names."""
    dags: list[Dag] = []

    class Made(Dag):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            dags.append(self)

    for name in ("airflow", "airflow.sdk", "airflow.operators", "airflow.providers", "kubernetes"):
        monkeypatch.setitem(sys.modules, name, None)
    if version == 2:
        module(monkeypatch, "airflow", DAG=Made)
        module(monkeypatch, "airflow.operators")
        module(monkeypatch, "airflow.operators.bash", BashOperator=Task)
    else:
        module(monkeypatch, "airflow")
        module(monkeypatch, "airflow.sdk", DAG=Made)
        module(monkeypatch, "airflow.providers.standard.operators.bash", BashOperator=Task)
        for name in ("standard", "standard.operators"):
            module(monkeypatch, f"airflow.providers.{name}")
    module(monkeypatch, "airflow.providers")
    for name in ("docker", "docker.operators", "cncf", "cncf.kubernetes", "cncf.kubernetes.operators"):
        module(monkeypatch, f"airflow.providers.{name}")
    module(monkeypatch, "airflow.providers.docker.operators.docker", DockerOperator=Task)
    module(monkeypatch, "airflow.providers.cncf.kubernetes.operators.pod", KubernetesPodOperator=Task)
    names = (
        "V1EnvFromSource",
        "V1SecretEnvSource",
        "V1ConfigMapEnvSource",
        "V1ResourceRequirements",
    )
    module(monkeypatch, "kubernetes")
    models = SimpleNamespace(**dict.fromkeys(names, SimpleNamespace))
    module(monkeypatch, "kubernetes.client", models=models)
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "dag_file"})  # noqa: S102
    [dag] = dags
    return dag


def use_executor(root: Path, executor: str) -> None:
    image = 'image: "zot-registry:5050/mbt-runner:latest"'
    chosen = {
        "kubernetes": KUBERNETES + f"          {image}\n",
        "docker": f"        type: docker\n        config:\n"
        f"          environment: {{MODE: batch}}\n          {image}\n",
        "local": "        type: local\n",
    }[executor]
    path = root / "profiles.yaml"
    text = path.read_text()
    start = text.index(KUBERNETES)
    path.write_text(text[:start] + chosen + text[text.index("      storage:", start) :])


def generate(root: Path, target: str = "prod") -> Path:
    assert call("compile", "all", "--target", target).exit_code == 0
    result = call("generate-dags", "--target", target, "--output", "generated_dags")
    assert result.exit_code == 0, result.output
    assert f"DAG saved to generated_dags/{TRAINING}_dag.py\n" in result.stdout
    return root / "generated_dags"


def manifest(root: Path, name: str) -> Manifest:
    return Manifest.model_validate_json((root / "target" / name / "manifest.json").read_bytes())


def command_of(task: Task) -> list[str]:
    if "bash_command" in task.arguments:
        # The run id is a template with blanks, and no word of the others has one.
        head, _, run_id = task.arguments["bash_command"].partition(" --run-id ")
        return [*head.split(), "--run-id", run_id]
    if "cmds" in task.arguments:
        return [*task.arguments["cmds"], *task.arguments["arguments"]]
    return [*task.arguments["entrypoint"], *task.arguments["command"]]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", [TRAINING, SERVING])
def test_a_dag_has_one_task_a_step_wired_as_the_manifest_says(root, monkeypatch, name, executor, version):
    use_executor(root, executor)
    dag = run_file(monkeypatch, generate(root) / f"{name}_dag.py", version)
    steps = manifest(root, name)
    assert {task.task_id: sorted(task.upstream) for task in dag.tasks.values()} == steps.dag.parent_map
    for step, task in dag.tasks.items():
        command = command_of(task)
        run_id = command.pop()
        assert command == [
            *["mlplatform", "step", "execute", "--pipeline", name, "--step", step],
            *["--target", "prod", "--run-id"],
        ]
        assert "run_" in run_id


def test_a_dag_carries_what_profile_and_pipeline_say(root, monkeypatch):
    dag = run_file(monkeypatch, generate(root) / f"{TRAINING}_dag.py", 3)
    assert dag.arguments == {
        "dag_id": TRAINING,
        "schedule": "@monthly",
        "start_date": datetime(2026, 1, 1, tzinfo=UTC),
        "catchup": False,
        "max_active_runs": 1,
        "tags": ["mlplatform", TRAINING],
        "default_args": {"owner": "de-team", "retries": 2, "retry_delay": timedelta(minutes=5)},
    }


@pytest.mark.parametrize("cadence", [*CADENCES, None])
def test_the_schedule_is_the_pipeline_s_cadence(root, monkeypatch, cadence):
    line = f"  cadence: {cadence}\n" if cadence else ""
    replace(root / "pipelines" / f"{TRAINING}.yaml", "  cadence: monthly\n", line)
    dag = run_file(monkeypatch, generate(root) / f"{TRAINING}_dag.py", 3)
    assert dag.arguments["schedule"] == (CADENCES[cadence] if cadence else None)


def test_a_pod_has_what_the_profile_and_its_step_ask_for(root, monkeypatch):
    path = root / "pipelines" / f"{TRAINING}.yaml"
    framework = "    framework: h2o_automl\n"
    replace(path, framework, f"{framework}    resources: {{memory: 4Gi, cpu: 2}}\n")
    replace(
        root / "profiles.yaml",
        "          env_from_configmaps:",
        "          environment: {MODE: 'a \"b\"'}\n          env_from_configmaps:",
    )
    dag = run_file(monkeypatch, generate(root) / f"{TRAINING}_dag.py", 3)
    pod = dag.tasks["train_model"].arguments
    assert pod["namespace"] == "mbt-pipelines"
    assert pod["service_account_name"] == "mbt-runner"
    assert pod["image"] == "zot-registry:5050/mbt-runner:latest"
    assert pod["env_vars"] == {"MODE": 'a "b"'}
    assert [vars(source) for source in pod["env_from"]] == [
        {"secret_ref": SimpleNamespace(name="mbt-secrets")},
        {"config_map_ref": SimpleNamespace(name="mbt-config")},
    ]
    asked = {"memory": "4Gi", "cpu": "2"}
    assert pod["container_resources"] == SimpleNamespace(requests=asked, limits=asked)
    assert dag.tasks["evaluate"].arguments["container_resources"] == SimpleNamespace(
        requests=None, limits=None
    )


def test_a_local_task_runs_in_the_project_s_folder_on_the_worker(root, monkeypatch):
    call("compile", "all")
    call("generate-dags", "--target", "dev", "--output", "dags")
    dag = run_file(monkeypatch, root / "dags" / f"{TRAINING}_dag.py", 2)
    assert dag.tasks["load_data"].arguments["cwd"] == str(root)
    call("generate-dags", "--target", "dev", "--output", "dags", "--worker-dir", "/opt/project")
    dag = run_file(monkeypatch, root / "dags" / f"{TRAINING}_dag.py", 2)
    assert dag.tasks["load_data"].arguments["cwd"] == "/opt/project"
    assert dag.tasks["load_data"].arguments["append_env"] is True


@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_secret_is_in_a_file(root, monkeypatch, executor):
    for name in SECRETS:
        monkeypatch.setenv(name, "canary-4711")
    use_executor(root, executor)
    for path in generate(root).iterdir():
        assert "canary-4711" not in path.read_text()
        assert f"need these variables in their environment: {', '.join(SECRETS)}." in path.read_text()


def test_a_container_gets_its_secrets_from_the_worker_s_environment_where_airflow_does_not_look(
    root, monkeypatch
):
    use_executor(root, "docker")
    path = generate(root) / f"{TRAINING}_dag.py"
    monkeypatch.setenv("PG_PASSWORD", "canary-4711")
    monkeypatch.delenv("S3_ACCESS_KEY", raising=False)
    container = run_file(monkeypatch, path, 3).tasks["load_data"].arguments
    assert container["private_environment"] == {"PG_PASSWORD": "canary-4711"}
    assert container["environment"] == {"MODE": "batch"}


def test_pods_without_their_secrets_are_warned_of(root):
    replace(root / "profiles.yaml", "          env_from_secrets: [mbt-secrets]\n", "")
    call("compile", "all", "--target", "prod")
    result = call("generate-dags", "--target", "prod", "--output", "dags")
    assert result.exit_code == 0
    assert f"{TRAINING}: its pods need PG_PASSWORD, S3_ACCESS_KEY, S3_SECRET_KEY" in result.stderr
    assert "env_from_secrets" in result.stderr


def test_a_secret_in_the_executor_s_configuration_is_refused(root):
    replace(
        root / "profiles.yaml",
        "          env_from_configmaps:",
        "          environment: {TOKEN: \"{{ secret('TOKEN') }}\"}\n          env_from_configmaps:",
    )
    call("compile", "all", "--target", "prod")
    result = call("generate-dags", "--target", "prod", "--output", "dags")
    assert result.exit_code == 1
    assert "outputs.prod.executor.config holds a secret" in result.stderr
    assert not (root / "dags").exists()


def test_a_pod_without_an_image_is_refused(root):
    replace(root / "profiles.yaml", '          image: "zot-registry:5050/mbt-runner:latest"\n', "")
    call("compile", "all", "--target", "prod")
    result = call("generate-dags", "--target", "prod", "--output", "dags")
    assert result.exit_code == 1
    assert "executor.config.image is missing" in result.stderr


def test_without_manifests_the_error_says_how_to_make_them(root):
    result = call("generate-dags", "--target", "prod", "--output", "dags")
    assert result.exit_code == 1
    assert "there is no manifest in" in result.stderr
    assert "run `mlplatform compile all --target prod`" in result.stderr


def test_a_manifest_for_another_target_is_refused(root):
    call("compile", "all", "--target", "dev")
    result = call("generate-dags", "--target", "prod", "--output", "dags")
    assert result.exit_code == 1
    assert "is compiled for target dev: run `mlplatform compile all --target prod`" in result.stderr


def test_a_torn_manifest_is_named(root):
    call("compile", "all", "--target", "prod")
    path = root / "target" / TRAINING / "manifest.json"
    path.write_text(path.read_text()[:1000])
    result = call("generate-dags", "--target", "prod", "--output", "dags")
    assert result.exit_code == 1
    assert f"target/{TRAINING}/manifest.json cannot be read" in result.stderr


def test_a_pipeline_that_is_gone_gets_no_dag(root):
    call("compile", "all", "--target", "prod")
    (root / "pipelines" / f"{SERVING}.yaml").unlink()
    result = call("generate-dags", "--target", "prod", "--output", "dags")
    assert result.exit_code == 0
    assert f"target/{SERVING}/manifest.json is of a pipeline that is gone" in result.stderr
    assert [path.name for path in (root / "dags").iterdir()] == [f"{TRAINING}_dag.py"]


MOMENT = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


def run_ids(root: Path, monkeypatch: pytest.MonkeyPatch, context: dict[str, Any]) -> dict[str, set[str]]:
    """Run ids of each pipeline's tasks, rendered as Airflow renders them."""
    found = {}
    folder = generate(root)
    for name in (TRAINING, SERVING):
        tasks = run_file(monkeypatch, folder / f"{name}_dag.py", 3).tasks.values()
        jinja = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
        found[name] = {jinja.from_string(command_of(task)[-1]).render(context) for task in tasks}
    return found


def test_all_tasks_of_a_run_have_its_id_and_no_other_pipeline_s(root, monkeypatch):
    context = {"ds_nodash": "20260301", "ts_nodash": "20260301T000000"}
    assert run_ids(root, monkeypatch, context) == {
        TRAINING: {f"run_20260301_20260301T000000_{TRAINING}"},
        SERVING: {f"run_20260301_20260301T000000_{SERVING}"},
    }


def test_a_run_without_a_logical_date_has_an_id_too(root, monkeypatch):
    context = {"dag_run": SimpleNamespace(run_after=MOMENT)}
    assert run_ids(root, monkeypatch, context)[TRAINING] == {f"run_20260301_20260301T123005_{TRAINING}"}


def test_a_file_is_plain_python_that_ruff_has_nothing_against(root):
    folder = generate(root)
    select = "E,F,I,B,S,RET"
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length",
        "110",
        "--select",
        select,
    ]
    ended = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_stands_in_the_profile_cannot_become_code(root):
    call("compile", "all", "--target", "prod")
    before = manifest(root, TRAINING)
    nasty = '"\n}\nimport os\nos.abort()\n#'
    profile = before.profile_config.model_copy(deep=True)
    defaults = profile.orchestrator.config.default_args.model_copy(update={"owner": nasty})
    orchestrator = profile.orchestrator.model_copy(
        update={"config": profile.orchestrator.config.model_copy(update={"default_args": defaults})}
    )
    changed = before.model_copy(
        update={"profile_config": profile.model_copy(update={"orchestrator": orchestrator})}
    )
    text = dag_file(changed, "/project", [])
    assert "os.abort" in text
    assert "\nos.abort" not in text
    compile(text, "dag", "exec")


IMPORT = """
import json, sys
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models.dagbag import DagBag
bag = DagBag(sys.argv[1])
print(json.dumps({
    "errors": bag.import_errors,
    "dags": {
        dag.dag_id: {
            "schedule": getattr(dag, "schedule_interval", None) or dag.schedule,
            "start": dag.start_date.isoformat(),
            "catchup": dag.catchup,
            "active": dag.max_active_runs,
            "tags": sorted(dag.tags),
            "tasks": {
                task.task_id: [
                    type(task).__name__,
                    sorted(task.upstream_task_ids),
                    task.owner,
                    task.retries,
                    task.retry_delay.total_seconds(),
                ]
                for task in dag.tasks
            },
        }
        for dag in bag.dags.values()
    },
}))
"""


@pytest.mark.skipif(not AIRFLOW, reason="MLPLATFORM_TEST_AIRFLOW names no Python that has Airflow")
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_real_airflow_imports_the_files(root, tmp_path, executor):
    use_executor(root, executor)
    folder = generate(root)
    ended = subprocess.run(
        [str(AIRFLOW), "-c", IMPORT, str(folder)],
        env={
            "PATH": os.environ["PATH"],
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["errors"] == {}
    assert found["dags"] == {
        name: {
            "schedule": schedule,
            "start": "2026-01-01T00:00:00+00:00",
            "catchup": False,
            "active": 1,
            "tags": ["mlplatform", name],
            "tasks": {
                step: [OPERATORS[executor], parents, "de-team", 2, 300.0]
                for step, parents in manifest(root, name).dag.parent_map.items()
            },
        }
        for name, schedule in ((TRAINING, "@monthly"), (SERVING, "@daily"))
    }
