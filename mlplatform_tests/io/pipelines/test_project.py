from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime

import pytest

from mlplatform.domain.batch.manifest import Manifest
from mlplatform.domain.batch.problems import InvalidProject
from mlplatform_tests.io.pipelines.folders import (
    EVERYTHING,
    MINIMAL,
    RUN_ID,
    SEED,
    load,
    of_path,
    project_of,
    seed_with_run_id,
)

CANARY = "canary-7f3a91"


@pytest.fixture
def seed(tmp_path):
    return seed_with_run_id(tmp_path)


def test_the_seeds_own_files_are_valid_but_for_the_placeholder() -> None:
    project = load(SEED)
    assert project.names() == ["serving_churn_model_v1", "training_churn_model_v1"]
    assert [str(problem) for problem in project.validate()] == [
        "pipelines/serving_churn_model_v1.yaml:35: serving.model_source.run_id: <run_id_from_mlflow> is still"
        " a placeholder; put the run id that MLflow shows, or champion"
    ]


def test_the_seeds_training_pipeline_compiles_to_its_five_steps(seed) -> None:
    manifest = load(seed).compile("training_churn_model_v1")
    assert list(manifest.steps) == ["load_data", "split_data", "train_model", "evaluate", "log_run"]
    assert manifest.dag.execution_batches == [[step] for step in manifest.steps]
    assert manifest.metadata.target == "dev"
    assert manifest.target.data_connector.config == {"data_path": "./sample_data"}
    training = manifest.pipeline.training
    assert training.model_training.config == {
        "max_runtime_secs": 300,
        "max_models": 10,
        "sort_metric": "AUC",
        "seed": 42,
        "nfolds": 5,
    }
    assert manifest.experiment_name == "churn_prediction"
    assert manifest.pipeline.deployment.cadence == "monthly"
    assert manifest.profile_config.orchestrator.config.default_args.retries == 2


def test_the_seeds_serving_pipeline_compiles_for_prod(seed) -> None:
    manifest = load(seed, PG_HOST="db.example").compile("serving_churn_model_v1", "prod")
    assert manifest.metadata.pipeline_type == "serving"
    assert list(manifest.profile_config.outputs) == ["prod"]
    connector = manifest.target.data_connector
    assert connector.config["host"] == "db.example"
    assert connector.config["port"] == 5432
    assert connector.config["user"] == "mbt_user"
    assert connector.config["password"] == "{{ secret('PG_PASSWORD') }}"
    serving = manifest.pipeline.serving
    assert serving is not None
    assert serving.model_source.run_id == RUN_ID
    assert manifest.pipeline.model_name == load(seed).pipeline("training_churn_model_v1").model_name
    assert manifest.steps["publish"].config["serving"]["output"]["table"] == "churn_predictions"


def test_a_limit_of_time_is_warned_of(seed) -> None:
    (warning,) = load(seed).warnings()
    assert warning.path == "training.model_training.config"
    assert warning.line == 28
    assert "max_runtime_secs" in warning.message


@pytest.mark.parametrize("name", ["training_everything", "serving_everything", "training_absolute"])
def test_a_manifest_reads_back_as_it_was_written(name) -> None:
    manifest = load(EVERYTHING).compile(name)
    text = manifest.model_dump_json(indent=2, by_alias=True)
    back = Manifest.model_validate_json(text)
    assert back == manifest
    assert back.model_dump_json(indent=2, by_alias=True) == text


def test_a_manifest_differs_by_its_time_only() -> None:
    first, second = (
        json.loads(load(EVERYTHING).compile("training_everything").model_dump_json()) for _ in range(2)
    )
    assert datetime.fromisoformat(first["metadata"].pop("generated_at")).tzinfo == UTC
    del second["metadata"]["generated_at"]
    assert json.dumps(first) == json.dumps(second)


def test_everything_that_can_be_said_is_read() -> None:
    project = load(EVERYTHING)
    pipeline = project.pipeline("training_everything")
    training = pipeline.training
    assert training.data_source.feature_tables[1].point_in_time.ttl_days == 90.5
    assert training.schema_.target.classes == ["no", "yes"]
    assert training.preprocessing.custom[0].config == {"cap": 0.001}
    assert training.model_training.resources.cpu == "2"
    assert [check.name for check in training.data_checks][-1] == "custom"
    steps = project.compile("training_everything").steps
    assert steps["train_model"].resources == {"cpu": "2", "memory": "4Gi"}
    assert steps["load_data"].resources == {}
    assert steps["train_model"].depends_on == ["feature_selection", "split_data"]
    windows = project.pipeline("training_absolute").training.data_source.data_windows.windows
    assert windows.test_end_date == date(2025, 7, 31)
    assert project.pipeline("training_absolute").training.evaluation.primary_metric == "rmse"


def test_no_secret_comes_into_a_manifest(seed) -> None:
    environment = {"PG_PASSWORD": CANARY, "S3_ACCESS_KEY": CANARY, "S3_SECRET_KEY": CANARY, "PG_HOST": "db"}
    project = load(seed, **environment)
    assert project.validate() == []
    for name in project.names():
        for target in ("dev", "prod"):
            assert CANARY not in project.compile(name, target).model_dump_json()
    assert CANARY not in repr(project)


def test_an_unknown_pipeline_or_target_names_the_nearest(seed) -> None:
    with pytest.raises(InvalidProject, match="did you mean training_churn_model_v1"):
        load(seed).pipeline("training_churn_model")
    with pytest.raises(InvalidProject, match="no target 'prd': there are dev, prod; did you mean prod"):
        load(seed).compile("training_churn_model_v1", "prd")
    with pytest.raises(InvalidProject, match="did you mean prod"):
        load(seed, "prd").compile("training_churn_model_v1")
    assert [each.line for each in load(seed, "prd").validate()] == [16]


def test_a_target_is_chosen_by_the_caller_else_by_the_profile(seed) -> None:
    assert load(seed).target == "dev"
    assert load(seed, "prod").target == "prod"
    assert load(seed, "prod").compile("training_churn_model_v1").metadata.target == "prod"
    assert load(seed, "prod").compile("training_churn_model_v1", "dev").metadata.target == "dev"


def test_the_environment_of_another_target_need_not_be_set(seed) -> None:
    profiles = seed / "profiles.yaml"
    profiles.write_text(profiles.read_text().replace("env_var('PG_HOST', 'postgres')", "env_var('PG_HOST')"))
    assert load(seed).validate() == []
    assert load(seed).compile("training_churn_model_v1").target.storage.type == "local"
    (problem,) = load(seed, "prod").validate()
    assert problem.path == "demo-project.outputs.prod.data_connector.config.host"
    assert problem.line == 50
    assert "PG_HOST is not set" in problem.message
    with pytest.raises(InvalidProject, match="PG_HOST is not set"):
        load(seed).compile("training_churn_model_v1", "prod")


def test_an_empty_project_is_valid(tmp_path) -> None:
    assert load(tmp_path).validate() == []
    assert load(tmp_path).names() == []
    shutil.copy(SEED / "profiles.yaml", tmp_path)
    assert load(tmp_path).validate() == []


def test_without_profiles_pipelines_cannot_run(tmp_path) -> None:
    project_of(tmp_path, MINIMAL)
    (tmp_path / "profiles.yaml").unlink()
    project = load(tmp_path)
    assert [str(each) for each in project.validate()] == [
        "profiles.yaml: is missing; write one, as `mlplatform init` does"
    ]
    with pytest.raises(InvalidProject, match="mlplatform init"):
        project.compile("small")


def test_a_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InvalidProject, match="there is no such folder"):
        load(tmp_path / "nowhere")


def test_which_profile_is_meant(tmp_path) -> None:
    project_of(tmp_path, MINIMAL)
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(profiles.read_text() + "\nother: {target: a, outputs: {}}\n")
    (problem,) = load(tmp_path).validate()
    assert "several profiles: demo-project, other" in problem.message
    assert "pyproject.toml" in problem.suggestion
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[tool.mbt]\nprofile = "demo-project"\n')
    assert load(tmp_path).validate() == []
    pyproject.write_text('[tool.mbt]\nprofile = "other"\n[tool.mlplatform]\nprofile = "demo-project"\n')
    assert load(tmp_path).validate() == []
    pyproject.write_text('[tool.mlplatform]\nprofile = "demo-projet"\n')
    (problem,) = load(tmp_path).validate()
    assert problem.suggestion == "did you mean demo-project?"


def test_a_pipeline_has_the_name_of_its_file(tmp_path) -> None:
    (problem,) = project_of(tmp_path, MINIMAL, name="other").validate()
    assert problem.line == 2
    assert problem.message == "is 'small', but the file is other.yaml"
    assert "name: other" in problem.suggestion


def test_a_file_that_is_not_read_is_told(tmp_path) -> None:
    project = project_of(tmp_path, MINIMAL)
    (tmp_path / "pipelines/forgotten.yml").write_text(MINIMAL)
    assert [str(each) for each in project.validate()] == [
        "pipelines/forgotten.yml: is not read; rename it to forgotten.yaml"
    ]


def test_one_pipeline_does_not_read_another(tmp_path) -> None:
    project = project_of(tmp_path, MINIMAL, other="no: [yaml")
    assert project.validate(["small"]) == []
    assert project.compile("small").name == "small"
    assert [each.file for each in project.validate()] == ["pipelines/other.yaml"]


def test_all_problems_of_a_file_are_told_at_once(tmp_path) -> None:
    text = """
project: {name: small, problem_type: binary_classification, ownr: me}
deployment: {cadence: montly}
training:
  data_source: {label_tabel: customers}
  schema:
    target: {label_column: churned, classes: [0, 1], positive_class: 2}
    identifiers: {primary_key: 5}
  model_training: {framework: sklern, config: {model: Ridge}}
  evaluation: {primary_metric: auc_roc}
"""
    problems = project_of(tmp_path, text).validate()
    assert [(each.path, each.line) for each in problems] == [
        ("project.ownr", 2),
        ("deployment.cadence", 3),
        ("training.data_source.label_tabel", 5),
        ("training.schema.identifiers.primary_key", 8),
    ]
    problems = project_of(tmp_path, text.replace("primary_key: 5", "primary_key: id")).validate()
    assert [(each.path, each.suggestion) for each in problems[3:]] == [
        ("training.schema.target.positive_class", ""),
        ("training.model_training.framework", "did you mean sklearn?"),
        ("training.evaluation.primary_metric", "did you mean roc_auc?"),
    ]


def test_what_a_framework_says_stands_in_the_line_of_its_key(tmp_path) -> None:
    text = MINIMAL.replace(
        "config: {model: LogisticRegression}", "config: {model: LogisticRegression,\n\n  Cc: 1}"
    )
    (problem,) = project_of(tmp_path, text).validate()
    assert (problem.path, problem.line) == ("training.model_training.config.Cc", 10)


def test_code_of_the_project_must_be_there(tmp_path) -> None:
    text = MINIMAL + "  preprocessing: {custom: [{transform: 'share:Share'}]}\n"
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib/shares.py"
    library.write_text("class Shares:\n    pass\n")
    (problem,) = project_of(tmp_path, text).validate()
    assert (problem.message, problem.suggestion) == ("there is no lib/share.py", "did you mean shares?")
    assert problem.path == "training.preprocessing.custom[0].transform"
    (problem,) = project_of(tmp_path, text.replace("share:Share", "shares:Share")).validate()
    assert (problem.message, problem.suggestion) == ("lib/shares.py defines no Share", "did you mean Shares?")
    library.write_text("class Shares(:\n")
    (problem,) = project_of(tmp_path, text.replace("share:Share", "shares:Shares")).validate()
    assert "lib/shares.py is no Python" in problem.message


@pytest.mark.parametrize(
    ("source", "suggestion"),
    [
        ("class Cap:\n    def __init__(self, cap=1): ...\n", "did you mean cap?"),
        ("class Cap:\n    def __init__(self, *, other): ...\n", "it takes other"),
        ("class Cap:\n    def fit(self): ...\n", "it takes none"),
        # What only Python itself could say is not guessed.
        ("class Cap:\n    def __init__(self, **more): ...\n", None),
        ("class Cap(Base):\n    def fit(self): ...\n", None),
        ("@dataclass\nclass Cap:\n    cap: int\n", None),
        ("from .others import Cap\n", None),
    ],
)
def test_arguments_that_a_transform_does_not_take(tmp_path, source, suggestion) -> None:
    text = MINIMAL + "  preprocessing: {custom: [{transform: 'caps:Cap', config: {capp: 2}}]}\n"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/caps.py").write_text(source)
    found = [(each.path, each.message, each.suggestion) for each in project_of(tmp_path, text).validate()]
    path = "training.preprocessing.custom[0].config.capp"
    assert found == ([] if suggestion is None else [(path, "caps:Cap takes no capp", suggestion)])


@pytest.mark.parametrize(
    ("old", "new", "path", "suggestion"),
    [
        ("target: dev", "target: prd", "target", "did you mean prod?"),
        ("type: s3", "type: S3", "outputs.prod.storage.type", "did you mean s3?"),
        ("type: postgres", "type: postgress", "outputs.prod.data_connector.type", "did you mean postgres?"),
        (
            "type: postgres",
            "type: oracle",
            "outputs.prod.data_connector.type",
            "there are local_file, postgres",
        ),
        ("type: kubernetes", "type: kubernets", "outputs.prod.executor.type", "did you mean kubernetes?"),
        ("namespace:", "namspace:", "outputs.prod.executor.config.namspace", "did you mean namespace?"),
        ("retries: 2", "retries: -2", "orchestrator.config.default_args.retries", ""),
        ("tracking_uri:", "traking_uri:", "outputs.dev.mlflow.traking_uri", "did you mean tracking_uri?"),
    ],
)
def test_a_wrong_profile(tmp_path, old, new, path, suggestion) -> None:
    text = (SEED / "profiles.yaml").read_text()
    (tmp_path / "profiles.yaml").write_text(text.replace(old, new))
    found = of_path(load(tmp_path).validate(), f"demo-project.{path}")
    assert [each.suggestion for each in found] == [suggestion]
    assert new.split(":")[0] in (tmp_path / "profiles.yaml").read_text().splitlines()[found[0].line - 1]


def test_an_unknown_secrets_provider(tmp_path) -> None:
    text = (SEED / "profiles.yaml").read_text().replace("provider: env", "provider: vault")
    (tmp_path / "profiles.yaml").write_text(text)
    assert [each.message for each in load(tmp_path).validate()] == ["'vault' is no secrets provider"] * 2


def test_a_plugins_configuration_has_the_keys_that_it_says(tmp_path, monkeypatch) -> None:
    from mlplatform.io.plugins.storages.s3 import S3Storage

    monkeypatch.setattr(
        S3Storage, "config_keys", ("bucket", "endpoint_url", "access_key", "secret_key"), raising=False
    )
    text = (SEED / "profiles.yaml").read_text()
    (tmp_path / "profiles.yaml").write_text(text.replace("bucket:", "buckett:"))
    (problem,) = load(tmp_path).validate()
    assert (problem.line, problem.suggestion) == (43, "did you mean bucket?")


def test_validation_and_compilation_import_nothing_heavy() -> None:
    code = f"""
import sys
from pathlib import Path
from mlplatform.io.pipelines.project import Project
from mlplatform.settings import Settings
for folder in ({str(SEED)!r}, {str(EVERYTHING)!r}):
    project = Project.load(Path(folder), Settings({{}}))
    project.validate()
    project.compile("training_everything" if "everything" in folder else "training_churn_model_v1")
heavy = {{"dagster", "mlflow", "h2o", "sklearn", "pandas", "pyarrow", "psycopg2", "jpype", "sqlalchemy"}}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_text_that_is_no_file_is_a_pipeline_of_the_project(seed) -> None:
    project = load(seed)
    assert project.declare(MINIMAL) == "small"
    assert project.compile("small").name == "small"
    assert "small" not in project.names()


@pytest.mark.parametrize(
    ("before", "after", "path", "message"),
    [
        ("name: small", "owner: \"{{ env_var('HOME') }}\", name: small", "project.owner", "is a template"),
        (
            "project: ",
            "deployment: !include ../profiles.yaml\nproject: ",
            "deployment",
            "!include is for files",
        ),
        ("name: small", "ownr: me, name: small", "project.ownr", "no such key"),
        ("project: ", "base_pipeline: small\nproject: ", "base_pipeline", "no such key"),
        (
            "small",
            "training_churn_model_v1",
            "project.name",
            "the project has a pipeline training_churn_model_v1",
        ),
        ("training:", "training:\n  training:", "", ""),
        ("project: ", "- project: ", "", "is no YAML"),
    ],
)
def test_a_text_knows_nothing_of_this_machine(seed, before: str, after: str, path: str, message: str) -> None:
    assert before in MINIMAL
    with pytest.raises(InvalidProject) as told:
        load(seed).declare(MINIMAL.replace(before, after, 1))
    problem = told.value.problems[0]
    assert problem.file == "pipeline.yaml"
    assert problem.path.startswith(path)
    assert problem.message.startswith(message)
    assert problem.line > 0


def test_a_text_may_ask_for_secrets(seed) -> None:
    text = MINIMAL.replace("name: small", "owner: \"{{ secret('OWNER') }}\", name: small")
    assert load(seed).declare(text) == "small"
