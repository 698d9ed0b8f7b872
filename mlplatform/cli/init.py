"""`mlplatform init`: a new project of batch pipelines."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.cli.pipelines import write_whole

if TYPE_CHECKING:
    from mlplatform.cli.sample_data import SampleData

Template = Literal["basic", "typical-ds-pipeline", "empty"]
TEMPLATES = Path(__file__).parent / "templates"
# The name that stands in the templates, so that each is a valid file as it is.
NAME = "demo-project"
FIRST: dict[Template, str] = {
    "basic": "training_churn_model_v1",
    "typical-ds-pipeline": "training_churn_features_v1",
}


@click.command()
@click.argument("path", metavar="NAME", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--template",
    type=click.Choice(["basic", "typical-ds-pipeline", "empty"]),
    default="basic",
    show_default=True,
    help="basic: churn of 7,043 real customers, H2O AutoML. typical-ds-pipeline: made-up customers, joined "
    "feature tables, windows of time, feature selection, scikit-learn. empty: no pipeline yet.",
)
@click.option(
    "--customers", type=click.IntRange(50), default=1000, show_default=True, help="Of typical-ds-pipeline."
)
@click.option(
    "--features",
    type=click.IntRange(10, 5000),
    default=50,
    show_default=True,
    help="Columns of features_b, of typical-ds-pipeline.",
)
def init(path: Path, template: Template, customers: int, features: int) -> None:
    """Make a project: pipelines, profiles, sample data, tests, CI and a Dockerfile.

    NAME is a new folder, or one that has none of these files yet: nothing is overwritten.

    \b
    Examples:
      mlplatform init demo-project
      mlplatform init churn --template typical-ds-pipeline --customers 200 --features 20
      mlplatform init . --template empty
    """
    root = path.resolve()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", root.name):
        raise click.BadParameter(
            f"{root.name!r}: a name has letters, digits, _, - and . only, a letter or digit first"
        )
    with readable_errors():
        tables = _tables(template, customers, features)
        files = _files(root.name, template, tables)
        there = [name for name in files if (root / name).exists()]
        if there:
            raise click.ClickException(
                f"nothing was written, since {root} has {', '.join(sorted(there)[:5])} already: "
                "choose another folder, or remove them"
            )
        for name, text in files.items():
            write_whole(root / name, text)
    click.echo(f"Project {root.name} made in {root}: {len(files)} files.")
    if tables.told:
        click.echo(f"Sample data: {tables.told}.")
    click.echo("\nNext:")
    # As the user named it: what they can type.
    if root != Path.cwd():
        click.echo(f"  cd {path}")
    for step in _next(template):
        click.echo(f"  {step}")


def _tables(template: Template, customers: int, features: int) -> SampleData:
    from mlplatform.cli.sample_data import SampleData, monthly_features, telco

    if template == "basic":
        return telco()
    return monthly_features(customers, features) if template == "typical-ds-pipeline" else SampleData({}, "")


def _files(name: str, template: Template, tables: SampleData) -> dict[str, str]:
    """Contents by path."""
    from mlplatform.io.pipelines.schemas import pipeline_schema, profiles_schema

    files = {}
    for folder in (TEMPLATES / "common", TEMPLATES / template):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                target = path.relative_to(folder).as_posix().replace("dot-", ".")
                files[target] = path.read_text(encoding="utf-8").replace(NAME, name)
    files["Dockerfile"] = files["Dockerfile"].replace("__VERSION__", version("mlplatform"))
    for kind, schema in (("pipeline", pipeline_schema()), ("profiles", profiles_schema())):
        files[f".schemas/{kind}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return files | {f"sample_data/{table}": text for table, text in tables.files.items()}


def _next(template: Template) -> list[str]:
    if template not in FIRST:
        return ["mlplatform validate", "mlplatform init --help    # templates with pipelines to start from"]
    training = FIRST[template]
    serving = training.replace("training_", "serving_")
    return [
        "mlplatform validate",
        f"mlplatform compile {training}",
        f"mlplatform run --select {training}",
        f"mlplatform run --select {serving}",
    ]
