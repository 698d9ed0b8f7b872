from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.domain.batch.features import FeatureError
from mlplatform.domain.batch.labels import LabelError
from mlplatform.domain.batch.pipeline import ProblemType, Training
from mlplatform.domain.batch.transforms import TransformError
from mlplatform.io.model_bundle import (
    CARD,
    SIGNATURE,
    BundleRefused,
    Model,
    feature_columns,
    fit_model,
    load_model,
)
from mlplatform.io.plugins.frameworks import FrameworkError, TrainingEnvironment
from mlplatform.io.project_code import ProjectCode
from mlplatform.io.signing import Signer

SIGNER = Signer(b"the key of the tests")
BUNDLES = Path(__file__).with_name("bundles")
RATIO = b"""
class Ratio:
    def __init__(self, of, to):
        self.of, self.to = of, to

    def fit(self, frame, target):
        self.usual = float((frame[self.of] / frame[self.to]).median())

    def transform(self, frame):
        return frame.assign(ratio=frame[self.of] / frame[self.to] / self.usual)
"""
CODE = ProjectCode({"features/ratios.py": RATIO})
CUSTOM = {"transform": "features.ratios:Ratio", "config": {"of": "total_charges", "to": "monthly_charges"}}


def customers(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    tenure = random.integers(1, 72, rows)
    monthly = random.gamma(4, 16, rows)
    contract = random.choice(["month-to-month", "one year", "two year"], rows, p=[0.6, 0.2, 0.2])
    leaves = random.random(rows) < 1 / (1 + np.exp(0.05 * tenure - 1.5 * (contract == "month-to-month")))
    return pd.DataFrame(
        {
            "customer_id": [f"C{number:05}" for number in range(rows)],
            "snapshot_date": pd.Timestamp("2026-01-01"),
            "tenure": tenure,
            "monthly_charges": monthly,
            "total_charges": tenure * monthly,
            "contract": contract,
            "email": "someone@example.org",
            "churned": leaves.astype(int),
        }
    )


def training(**blocks: Any) -> Training:
    target = {"label_column": "churned", "classes": [0, 1], "positive_class": 1, **blocks.pop("target", {})}
    return Training.model_validate(
        {
            "data_source": {"label_table": "customers"},
            "schema": {
                "target": target,
                "identifiers": {"primary_key": "customer_id", "partition_key": "snapshot_date"},
                "ignored_columns": ["email"],
            },
            "model_training": {"framework": "sklearn", "config": {"model": "LogisticRegression"}},
            **blocks,
        }
    )


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Model]:
    def fit(
        frame: pd.DataFrame | None = None,
        problem_type: ProblemType = "binary_classification",
        *,
        log: Callable[[str], None] = lambda _: None,
        code: ProjectCode = CODE,
        selected: list[str] | None = None,
        **blocks: Any,
    ) -> Model:
        frame = customers() if frame is None else frame
        environment = TrainingEnvironment(log, tmp_path)
        return fit_model(frame, training(**blocks), problem_type, environment, code, selected)

    return fit


@pytest.fixture
def bundle(fit: Callable[..., Model], tmp_path: Path) -> Path:
    """A saved model with a transform of the project's."""
    fit(preprocessing={"custom": [CUSTOM]}).save(tmp_path / "bundle", SIGNER)
    return tmp_path / "bundle"


def test_only_columns_that_may_be_known_are_features() -> None:
    time = {"event_time": "at", "created_time": "written", "label_time": "label_at"}
    with_join = training(
        data_source={"label_table": "l", "feature_tables": [{"table": "f", "point_in_time": time}]}
    )
    columns = [*customers().columns, "at", "written", "label_at"]
    features = ["tenure", "monthly_charges", "total_charges", "contract"]
    assert feature_columns(columns, with_join) == features


def test_a_model_knows_what_it_was_trained_on(fit: Callable[..., Model]) -> None:
    model = fit()
    assert [(each.name, each.kind) for each in model.inputs] == [
        ("tenure", "number"),
        ("monthly_charges", "number"),
        ("total_charges", "number"),
        ("contract", "category"),
    ]
    assert (model.classes, model.positive, model.rows) == ((0, 1), 1, 400)
    assert model.metrics["roc_auc"] > 0.7
    assert sum(model.importances.values()) == pytest.approx(1)
    # Of features, not of their encoded columns.
    assert set(model.importances) == {each.name for each in model.inputs}
    assert model.parameters["model"] == "LogisticRegression"
    assert any(line.startswith("scikit-learn==") for line in model.requirements)


def test_a_saved_model_says_the_same_from_a_folder_that_is_gone(
    fit: Callable[..., Model], tmp_path: Path
) -> None:
    model = fit(preprocessing={"custom": [CUSTOM], "imputation": {"strategy": "median"}})
    model.save(tmp_path / "bundle", SIGNER)
    again = load_model(tmp_path / "bundle", SIGNER)
    shutil.rmtree(tmp_path / "bundle")
    others = customers(100, seed=1)
    assert np.array_equal(again.predict(others), model.predict(others))
    assert again.card() == model.card()


@pytest.mark.parametrize("size", [1, 7, 64])
def test_scores_do_not_depend_on_chunks(size: int, bundle: Path) -> None:
    model, others = load_model(bundle, SIGNER), customers(64, seed=1)
    chunks = [model.predict(others.iloc[start : start + size]) for start in range(0, 64, size)]
    assert np.concatenate(chunks).tobytes() == model.predict(others).tobytes()


def test_no_rows_have_no_scores(bundle: Path) -> None:
    assert load_model(bundle, SIGNER).predict(customers().iloc[:0]).shape == (0, 2)


def test_a_model_without_its_estimator_does_all_but_score(bundle: Path) -> None:
    whole, partly = load_model(bundle, SIGNER), load_model(bundle, SIGNER, scoring=False)
    others = customers(20, seed=2)
    assert partly.card() == whole.card()
    assert partly.prepare(others).features.equals(whole.prepare(others).features)
    assert partly.predict(customers().iloc[:0]).shape == (0, 2)
    with pytest.raises(RuntimeError, match="without its estimator"):
        partly.predict(others)


def test_serving_needs_neither_label_nor_keys(bundle: Path) -> None:
    model = load_model(bundle, SIGNER)
    frame = customers(20, seed=2)
    bare = frame[["tenure", "monthly_charges", "total_charges", "contract"]]
    assert np.array_equal(model.predict(bare), model.predict(frame))


def test_labels_are_those_of_the_label_column(fit: Callable[..., Model]) -> None:
    frame = customers()
    frame["churned"] = np.where(frame["churned"] == 1, "yes", "no")
    model = fit(frame, target={"classes": ["yes", "no"], "positive_class": "yes"})
    assert (model.classes, model.positive) == (("yes", "no"), 0)
    scores = model.predict(frame)
    said = model.labels(scores)
    assert set(said) == {"yes", "no"}
    assert ((scores[:, 0] >= 0.5) == (said == "yes")).all()
    assert (said == frame["churned"]).mean() > 0.6


def test_several_classes_and_numbers(fit: Callable[..., Model], tmp_path: Path) -> None:
    frame = customers()
    target = {"label_column": "contract", "classes": None, "positive_class": None}
    several = fit(frame, "multiclass_classification", target=target)
    assert several.predict(frame).shape == (400, 3)
    assert set(several.labels(several.predict(frame))) <= {"month-to-month", "one year", "two year"}
    target["label_column"] = "total_charges"
    config = {"framework": "sklearn", "config": {"model": "RandomForestRegressor", "n_estimators": 5}}
    numbers = fit(frame, "regression", target=target, model_training=config)
    numbers.save(tmp_path / "bundle", SIGNER)
    scores = load_model(tmp_path / "bundle", SIGNER).predict(frame)
    assert scores.shape == (400,)
    assert np.array_equal(numbers.labels(scores), scores)


def test_selected_features_only(fit: Callable[..., Model]) -> None:
    model = fit(selected=["tenure"])
    assert [each.name for each in model.inputs] == ["tenure"]
    assert model.predict(customers()[["tenure"]]).shape == (400, 2)


def test_columns_that_are_not_used_are_logged(fit: Callable[..., Model]) -> None:
    lines: list[str] = []
    fit(customers().assign(empty=None), log=lines.append)
    assert "column empty is not used: it has no value at all" in lines


def test_rows_that_cannot_be_learned_are_logged_and_left_out(fit: Callable[..., Model]) -> None:
    lines: list[str] = []
    frame = customers().set_index(np.arange(1_000, 1_400))
    frame.loc[1_005, "monthly_charges"] = np.inf
    assert fit(frame, log=lines.append).rows == 399
    assert "1 rows are not learned, the first because monthly_charges is inf, not a finite number" in lines


def test_what_cannot_be_learned_is_told(fit: Callable[..., Model]) -> None:
    with pytest.raises(LabelError, match="one class only"):
        fit(customers().assign(churned=0))
    with pytest.raises(FeatureError, match="the table has no label column churned; it has customer_id"):
        fit(customers().drop(columns="churned"))
    with pytest.raises(LabelError, match="no label at all"):
        fit(customers().iloc[:0])


def test_a_column_gone_since_training_is_named(bundle: Path) -> None:
    with pytest.raises(FeatureError, match="no column tenure, contract, which the model was trained with"):
        load_model(bundle, SIGNER).predict(customers().drop(columns=["tenure", "contract"]))


def test_rows_that_cannot_be_scored_are_told_or_set_apart(bundle: Path) -> None:
    model = load_model(bundle, SIGNER)
    frame = customers(10).astype({"tenure": object})
    frame.loc[3, "tenure"] = "n/a"
    prepared = model.prepare(frame)
    assert prepared.refused.to_dict() == {3: "tenure is 'n/a', not a finite number"}
    assert model.score(prepared.features).shape == (9, 2)
    with pytest.raises(FeatureError, match="1 rows cannot be scored, the first being row 3: tenure is 'n/a'"):
        model.predict(frame)


def test_the_projects_code_travels_with_the_model(bundle: Path) -> None:
    """Whatever stands in the project's lib/ by then."""
    assert (bundle / "lib" / "features" / "ratios.py").read_bytes() == RATIO
    state = json.loads((bundle / CARD).read_text())["preparation"]["transforms"][0]["state"]
    assert state["of"] == "total_charges"
    assert state["usual"] > 0


def test_no_code_without_transforms(fit: Callable[..., Model], tmp_path: Path) -> None:
    fit().save(tmp_path / "bundle", SIGNER)
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == [SIGNATURE, "estimator", CARD]


def test_a_transform_whose_state_is_not_plain_is_told_before_training(fit: Callable[..., Model]) -> None:
    lines: list[str] = []
    code = ProjectCode(
        {"features/ratios.py": RATIO.replace(b"self.usual =", b"self.seen = {1}; self.usual =")}
    )
    with pytest.raises(TransformError, match=r"Ratio\.seen is a set, which cannot be kept"):
        fit(preprocessing={"custom": [CUSTOM]}, code=code, log=lines.append)
    assert lines == []


def touch_estimator(bundle: Path) -> None:
    (path,) = (bundle / "estimator").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def change_code(bundle: Path) -> None:
    (bundle / "lib/features/ratios.py").write_bytes(RATIO + b"import os\n")


def change_threshold(bundle: Path) -> None:
    card = json.loads((bundle / CARD).read_text())
    (bundle / CARD).write_text(json.dumps({**card, "threshold": 0.01}))


def add_code(bundle: Path) -> None:
    (bundle / "lib/extra.py").write_text("")


def add_a_link(bundle: Path) -> None:
    os.symlink("/etc/hostname", bundle / "estimator" / "more")


def remove_code(bundle: Path) -> None:
    shutil.rmtree(bundle / "lib")


def rename_code(bundle: Path) -> None:
    (bundle / "lib/features/ratios.py").rename(bundle / "lib/features/ratio.py")


@pytest.mark.parametrize(
    "tamper",
    [
        touch_estimator,
        change_code,
        change_threshold,
        add_code,
        add_a_link,
        remove_code,
        rename_code,
    ],
)
def test_a_changed_bundle_is_refused_before_anything_of_it_is_used(
    tamper: Callable[[Path], None], bundle: Path
) -> None:
    tamper(bundle)
    with pytest.raises(BundleRefused, match=r"signature of .* does not fit: a file was changed"):
        load_model(bundle, SIGNER)


def test_another_key_refuses_and_names_the_variable(bundle: Path) -> None:
    with pytest.raises(BundleRefused, match="MLPLATFORM_SNAPSHOT_KEY; set the key of where it was trained"):
        load_model(bundle, Signer(b"another key"))


@pytest.mark.parametrize("content", [None, "", "not hexadecimal"])
def test_an_unsigned_bundle_is_refused(content: str | None, bundle: Path) -> None:
    (bundle / SIGNATURE).unlink()
    if content is not None:
        (bundle / SIGNATURE).write_text(content)
    with pytest.raises(BundleRefused, match=r"no signed model|signature of"):
        load_model(bundle, SIGNER)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="is no signed model"):
        load_model(tmp_path / "nowhere", SIGNER)


def resign(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """As another version of the platform would have written it."""
    from mlplatform.io import model_bundle

    card = json.loads((bundle / CARD).read_text())
    change(card)
    (bundle / CARD).write_text(json.dumps(card))
    (bundle / SIGNATURE).write_text(SIGNER.sign(model_bundle._listing(bundle)).hex())


def test_another_release_of_the_library_is_refused(bundle: Path) -> None:
    resign(bundle, lambda card: card["versions"].update({"scikit-learn": "1.2.9"}))
    with pytest.raises(BundleRefused, match=r"trained with scikit-learn 1\.2\.9, and .*==1\.2\.9', or train"):
        load_model(bundle, SIGNER)


@pytest.mark.parametrize("release", sorted(path.name for path in BUNDLES.iterdir() if path.is_dir()))
def test_a_bundle_of_an_earlier_release_says_the_same_or_is_refused(release: str) -> None:
    """Kept as that release wrote it: never read wrongly."""
    try:
        model = load_model(BUNDLES / release, SIGNER)
    except BundleRefused as refused:
        assert "the model was trained with" in str(refused)  # noqa: PT017
        return
    said = json.loads((BUNDLES / f"{release}-scores.json").read_text())
    assert model.predict(customers()[: len(said)])[:, 1] == pytest.approx(said, rel=1e-9)


def test_another_patch_of_the_library_is_taken(bundle: Path) -> None:
    def patch(card: dict[str, Any]) -> None:
        major, minor, _ = card["versions"]["scikit-learn"].split(".")
        card["versions"]["scikit-learn"] = f"{major}.{minor}.99"

    resign(bundle, patch)
    load_model(bundle, SIGNER)


def test_another_format_is_refused(bundle: Path) -> None:
    resign(bundle, lambda card: card.update(format=2))
    with pytest.raises(BundleRefused, match="the model has format 2, and this mlplatform reads 1"):
        load_model(bundle, SIGNER)


def test_a_model_needs_a_folder_of_its_own(fit: Callable[..., Model], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        fit().save(tmp_path / "other", SIGNER)


class Broken:
    """An estimator that gives `scores` whatever it is asked."""

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = scores

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return self._scores

    def save(self, directory: Path) -> None: ...


@pytest.mark.parametrize(
    "scores",
    [np.full((2, 2), np.nan), np.array([[0.5, 0.6], [0.5, 0.5]]), np.array([[1.5, -0.5]] * 2), np.zeros(2)],
)
def test_what_is_no_probability_goes_no_further(scores: np.ndarray, fit: Callable[..., Model]) -> None:
    import dataclasses

    model = dataclasses.replace(fit(), estimator=Broken(scores))
    with pytest.raises(FrameworkError, match="holds no probabilities of 2 rows"):
        model.predict(customers(2))
