"""What a pipeline's YAML may say (`schema_version: 1`): one model for each of its blocks."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ProblemType = Literal["binary_classification", "multiclass_classification", "regression"]
Cadence = Literal["hourly", "daily", "weekly", "monthly"]
# As Airflow has them, to which the same pipeline may be given.
CRON = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0", "monthly": "0 0 1 * *"}
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        max_length=100,
        description="Letters, digits and _, a letter first.",
    ),
]


def _label(value: Any) -> Any:
    if isinstance(value, bool):
        shown = "yes or true" if value else "no or false"
        raise ValueError(f"YAML reads {shown}: quote the label, or write {int(value)} for a boolean column")
    return value


def _quantity(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


Label = Annotated[int | str, BeforeValidator(_label)]
Quantity = Annotated[
    str,
    BeforeValidator(_quantity, json_schema_input_type=str | float),
    Field(
        pattern=r"^\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?$",
        description="A quantity of Kubernetes: 500m, 2, 4Gi.",
    ),
]
CHAMPION = "champion"


class Block(BaseModel):
    """A block of YAML: unknown keys are refused, and nothing changes after it was read."""

    # Deferred: a process that reads pipelines needs the validator of the outermost block only.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        defer_build=True,
        allow_inf_nan=False,
    )


class Project(Block):
    """Whose the pipeline is, and what kind of problem it solves."""

    name: Name = Field(description="The pipeline's name: that of its file without .yaml.")
    experiment_name: Text | None = Field(
        default=None, description="MLflow's experiment; else that of the profile."
    )
    model_name: Name | None = Field(
        None,
        description="Name in the model registry; else the pipeline's without training_ or serving_ and _v1.",
    )
    owner: Text | None = Field(default=None, description="The team that answers for it.")
    problem_type: ProblemType = Field(description="What the model predicts.")
    tags: list[Text] = Field(default=[], description="Words by which Dagit and MLflow find it.")


class Deployment(Block):
    """When the pipeline runs."""

    mode: Literal["batch", "realtime", "streaming"] = Field(
        default="batch",
        description="Pipelines run as batches; the other modes are accepted and change nothing.",
    )
    cadence: Cadence | None = Field(
        default=None, description="Its schedule; without one, it runs when launched."
    )

    @property
    def cron(self) -> str | None:
        """When it is due, in UTC."""
        return CRON[self.cadence] if self.cadence else None


class PointInTime(Block):
    """Which of a feature table's rows were known at the time of a label (see `domain.batch.joins`)."""

    event_time: Text = Field(description="Column of the feature table: when its values came to be true.")
    created_time: Text | None = Field(
        default=None, description="Column: when the row was written; later ones are unknown."
    )
    label_time: Text = Field(description="Column of the label table: as of when features are taken.")
    ttl_days: float | None = Field(default=None, gt=0, description="Values older than this are missing.")


class FeatureTable(Block):
    """A table that is joined to that of the labels, or of what is scored."""

    table: Text = Field(description="Name of the table, which the profile's data connector reads.")
    join_key: list[Text] = Field(
        default=["customer_id", "snapshot_date"], min_length=1, description="Columns that both tables have."
    )
    join_type: Literal["left", "inner"] = Field(
        default="left", description="left keeps rows that have no features."
    )
    fan_out_check: bool = Field(
        default=True, description="Fail if the join makes more than 1.1 times the rows."
    )
    point_in_time: PointInTime | None = Field(
        default=None, description="Take for each label the newest features that were known at its time."
    )


class Windows(Block):
    """Relative lengths count back from the newest partition; absolute ones are dates, ends included."""

    test_lookback_units: int | None = Field(
        default=None, ge=1, description="Length of the test set, which is newest."
    )
    train_gap_units: int = Field(
        default=0, ge=0, description="Units between the training set and the test set."
    )
    train_lookback_units: int | None = Field(default=None, ge=1, description="Length of the training set.")
    train_start_date: date | None = Field(default=None, description="First day of the training set.")
    train_end_date: date | None = Field(default=None, description="Last day of the training set.")
    test_start_date: date | None = Field(default=None, description="First day of the test set.")
    test_end_date: date | None = Field(default=None, description="Last day of the test set.")


class DataWindows(Block):
    """Training and test sets by time (schema.identifiers.partition_key) instead of by chance."""

    logic: Literal["relative", "absolute"] = Field(description="Lengths back from the newest data, or dates.")
    unit_type: Literal["days", "weeks", "months", "quarters", "years"] = Field(
        default="months", description="Unit of relative lengths."
    )
    windows: Windows

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = (
            ("test_lookback_units", "train_lookback_units")
            if self.logic == "relative"
            else ("train_start_date", "train_end_date", "test_start_date", "test_end_date")
        )
        missing = [name for name in wanted if getattr(self.windows, name) is None]
        if missing:
            raise ValueError(f"logic: {self.logic} needs windows.{', windows.'.join(missing)}")
        return self


class DataSource(Block):
    """Where the training data comes from."""

    label_table: Text = Field(description="Table with the label, one row for each thing to learn from.")
    feature_tables: list[FeatureTable] = Field(default=[], description="Tables to join to it.")
    data_windows: DataWindows | None = Field(
        default=None, description="Split by time; else a fifth is held back by a hash of the key."
    )


class Target(Block):
    """What is predicted."""

    label_column: Text = Field(description="Column of the label.")
    classes: list[Label] | None = Field(
        default=None, min_length=2, description="The label's values, in the order of the probabilities."
    )
    positive_class: Label | None = Field(
        default=None, description="The class whose probability is the score; of two classes, else the last."
    )


class Identifiers(Block):
    """Columns that tell rows apart; they are no features."""

    primary_key: Text = Field(description="Column, unique within a partition.")
    partition_key: Text | None = Field(
        default=None, description="Column of dates: which snapshot a row belongs to."
    )


class Schema(Block):
    """Which columns mean what; all others are features."""

    target: Target
    identifiers: Identifiers
    ignored_columns: list[Text] = Field(default=[], description="Columns that are no features.")


class HighMissing(Block):
    """Drops columns of which too much is missing."""

    enabled: bool = True
    threshold: float = Field(
        default=0.95, gt=0, le=1, description="Largest share of missing values that is kept."
    )


class Imputation(Block):
    """Fills in what is missing in columns of numbers."""

    strategy: Literal["median", "mean", "mode"] = Field(
        default="median", description="The value of the training set that stands for a missing one."
    )


class CustomTransform(Block):
    """A class of the project's `lib/` with `fit(frame, target)` and `transform(frame)`."""

    transform: str = Field(description="module:Class, the module below lib/", pattern=r"^[\w.]+:\w+$")
    config: dict[str, Any] = Field(default={}, description="Arguments of the class.")


class Preprocessing(Block):
    """What is done to the features before training; fitted on the training set, kept with the model."""

    remove_high_missing: HighMissing | None = None
    remove_constant: bool = Field(default=False, description="Drop columns that have one value only.")
    imputation: Imputation | None = None
    custom: list[CustomTransform] = Field(default=[], description="Transforms of the project, in this order.")


class SelectionMethod(Block):
    """One way to choose features."""

    name: Literal["variance_threshold", "correlation", "mutual_info", "lgbm_importance"]
    threshold: float | None = Field(
        default=None, ge=0, description="Smallest score; largest correlation; share of the importance."
    )
    k: int | None = Field(default=None, ge=1, description="How many features to keep.")


class FeatureSelection(Block):
    """A step of its own, that chooses features on the training set."""

    enabled: bool = False
    methods: list[SelectionMethod] = Field(default=[], description="Applied one after the other.")


class Resources(Block):
    """What the training step asks of Kubernetes."""

    cpu: Quantity | None = None
    memory: Quantity | None = None


class ModelTraining(Block):
    """What trains the model."""

    framework: Text = Field(default="sklearn", description="sklearn, h2o_automl, or a plugin's name.")
    config: dict[str, Any] = Field(default={}, description="The framework's own settings.")
    resources: Resources | None = None


class Evaluation(Block):
    """How the model is judged on the test set."""

    primary_metric: Text = Field(
        default="roc_auc", description="The metric by which it competes with the champion (regression: rmse)."
    )
    additional_metrics: list[Text] = Field(default=[], description="Further metrics to report.")
    generate_plots: bool = Field(
        default=True, description="Draw curves, and keep them with the run in MLflow."
    )
    temporal_analysis: bool = Field(default=False, description="Report the metrics for each partition too.")


class DataCheck(Block):
    """One check of a frame; `skip_row` puts the rows that fail into quarantine."""

    name: Literal["null_threshold", "value_range", "expected_columns", "unique_key", "type_check", "custom"]
    columns: list[Text] = Field(default=[], description="Columns to look at.")
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="Largest share that may fail: of nulls, or of rows."
    )
    min: float | None = Field(default=None, description="value_range: smallest value.")
    max: float | None = Field(default=None, description="value_range: largest value.")
    type: Literal["integer", "number", "string", "boolean", "timestamp"] | None = Field(
        default=None, description="type_check: what the columns hold."
    )
    function: str | None = Field(
        default=None,
        description="custom: module:function of lib/, which gives a boolean for each row",
        pattern=r"^[\w.]+:\w+$",
    )
    on_failure: Literal["fail", "warn", "skip_row"] = Field(
        default="fail", description="End the run, warn, or put the rows into quarantine."
    )


class Training(Block):
    """How the model is made; in a serving pipeline, how it was made."""

    data_source: DataSource
    # The seed's word; pydantic's own `schema` is gone since version 2.
    schema_: Schema = Field(alias="schema")
    preprocessing: Preprocessing | None = None
    feature_selection: FeatureSelection | None = None
    data_checks: list[DataCheck] = Field(default=[], description="Checks of the loaded data.")
    model_training: ModelTraining = ModelTraining()
    evaluation: Evaluation = Evaluation()


class ModelSource(Block):
    """Which model scores."""

    registry: Text = Field(default="mlflow", description="Plugin of the model registry.")
    run_id: Text = Field(description="Run id of MLflow, or champion.")
    artifact_snapshot: bool = Field(
        default=False, description="Keep a copy of the model with the run's artefacts."
    )
    fallback_run_id: Text | None = Field(
        default=None, description="Taken when run_id cannot be loaded, with a warning."
    )


class ScoringSource(Block):
    """What is scored."""

    scoring_table: Text = Field(description="Table with one row for each thing to score.")
    feature_tables: list[FeatureTable] = Field(default=[], description="Tables to join to it.")


class Output(Block):
    """Where the scores go."""

    destination: Literal["local_file", "database"] = Field(
        default="local_file", description="A CSV file, or a table of the profile's data connector."
    )
    table: Text | None = Field(default=None, description="database: the table that is written.")
    path: Text | None = Field(default=None, description="local_file: the file, else predictions.csv.")
    columns: list[Text] | None = Field(
        default=None, description="Columns of the scoring table to publish beside key and score."
    )
    include_probabilities: bool = Field(
        default=True, description="Write the probability beside the predicted class."
    )


class Serving(Block):
    """How a table is scored."""

    model_source: ModelSource
    data_source: ScoringSource
    data_checks: list[DataCheck] = Field(default=[], description="Checks of the loaded data.")
    output: Output = Output()


class Pipeline(Block):
    """A training pipeline, or a serving pipeline if it has a `serving` block."""

    schema_version: Literal[1] = Field(default=1, description="Version of this language.")
    project: Project
    deployment: Deployment = Deployment()
    training: Training
    serving: Serving | None = None

    @model_validator(mode="before")
    @classmethod
    def _metric_of_regression(cls, data: Any) -> Any:
        """The default metric is one of classification."""
        if not isinstance(data, dict) or not isinstance(project := data.get("project"), dict):
            return data
        training = data.get("training")
        if project.get("problem_type") != "regression" or not isinstance(training, dict):
            return data
        evaluation = training.get("evaluation", {})
        if not isinstance(evaluation, dict) or "primary_metric" in evaluation:
            return data
        return {**data, "training": {**training, "evaluation": {**evaluation, "primary_metric": "rmse"}}}

    @property
    def name(self) -> str:
        return self.project.name

    @property
    def kind(self) -> Literal["training", "serving"]:
        return "serving" if self.serving else "training"

    @property
    def model_name(self) -> str:
        """Name of the registered model, which a training and a serving pipeline share."""
        if self.project.model_name:
            return self.project.model_name
        return re.sub(r"^(training|serving)_", "", re.sub(r"_v\d+$", "", self.name))
