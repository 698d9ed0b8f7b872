from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import S3Store

from mlplatform.io.plugins import plugin
from mlplatform.io.plugins.storages import Storage, StorageError
from mlplatform.io.plugins.storages.local import LocalStorage
from mlplatform.io.plugins.storages.s3 import S3Storage
from mlplatform.settings import Settings
from mlplatform_tests.io.plugins.storages_checks import CHECKS, LARGE, Failing


def of_the_platform(settings: Settings, root: Path) -> Storage:
    return plugin("storages", "s3")({}, settings, root)


def of_a_bucket(settings: Settings, root: Path) -> Storage:
    s3 = settings.s3
    config = {
        "bucket": f"pipeline-{uuid.uuid4().hex[:12]}",
        "endpoint_url": s3.endpoint_url,
        "access_key": s3.access_key_id,
        "secret_key": s3.secret_access_key,
    }
    return plugin("storages", "s3")(config, settings, root)


def of_a_folder(settings: Settings, root: Path) -> Storage:
    return plugin("storages", "local")({"base_path": "./artifacts"}, settings, root)


STORAGES: dict[str, Callable[[Settings, Path], Storage]] = {
    "local": of_a_folder,
    "s3, the platform's bucket": of_the_platform,
    "s3, another bucket": of_a_bucket,
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("storage", STORAGES)
def test_a_storage_passes_the_checks(storage: str, check: str, settings: Settings, tmp_path: Path) -> None:
    CHECKS[check](STORAGES[storage](settings, tmp_path))


def test_local_artifacts_are_files_of_the_project(settings: Settings, tmp_path: Path) -> None:
    uri = LocalStorage({}, settings, tmp_path).write("run_1/load_data/raw_data", io.BytesIO(b"rows"))
    assert Path(uri) == tmp_path / "local_artifacts/run_1/load_data/raw_data"
    assert Path(uri).read_bytes() == b"rows"


def test_a_failed_write_leaves_no_draft(settings: Settings, tmp_path: Path) -> None:
    storage = LocalStorage({}, settings, tmp_path)
    with pytest.raises(RuntimeError, match="gone"):
        storage.write("key", Failing(100))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = LocalStorage({"base_path": "file"}, settings, tmp_path)
    with pytest.raises(StorageError, match=r"file.*base_path"):
        storage.check()
    with pytest.raises(StorageError, match=r"file.*base_path"):
        storage.write("key", io.BytesIO(b""))


def test_objects_of_the_platform_lie_below_artifacts(settings: Settings, tmp_path: Path) -> None:
    uri = of_the_platform(settings, tmp_path).write("run/x", io.BytesIO(b"1"))
    assert uri == f"s3://{settings.s3.bucket}/{settings.s3.prefix}/artifacts/run/x"


def test_a_failed_upload_leaves_no_parts(settings: Settings, tmp_path: Path) -> None:
    import boto3

    s3 = settings.s3
    storage = of_the_platform(settings, tmp_path)
    with pytest.raises(RuntimeError, match="gone"):
        storage.write("large", Failing(LARGE))
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
        region_name=s3.region,
    )
    uploads = client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", [])
    assert [upload["Key"] for upload in uploads if s3.prefix in upload["Key"]] == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"buckett": "x"}, "no key 'buckett'.*did you mean bucket"),
        ({"prefix": "x"}, "names no bucket"),
        ({"bucket": "x", "access_key": "k"}, "belong together"),
    ],
)
def test_a_wrong_configuration_is_refused(settings: Settings, config: dict, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        S3Storage(config, settings, Path())


def test_a_server_that_is_down_is_named(settings: Settings, tmp_path: Path, monkeypatch) -> None:
    config = {
        "bucket": "bbb",
        "endpoint_url": "http://127.0.0.1:9",
        "access_key": "k",
        "secret_key": "canary",
    }
    storage = S3Storage(config, settings, tmp_path)
    down = S3Store(
        "bbb",
        endpoint="http://127.0.0.1:9",
        access_key_id="k",
        secret_access_key="canary",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    monkeypatch.setattr(storage._bucket, "_store", down, raising=False)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9.*'bbb'") as told:
        storage.check()
    assert "canary" not in str(told.value)


def test_a_bucket_is_made_only_on_a_laptop(settings: Settings, tmp_path: Path) -> None:
    s3 = settings.s3
    config = {
        "bucket": f"none-{uuid.uuid4().hex[:12]}",
        "endpoint_url": s3.endpoint_url,
        "access_key": s3.access_key_id,
        "secret_key": s3.secret_access_key,
    }
    elsewhere = Settings({**settings.variables, "MLPLATFORM_ENV": "kubernetes"})
    storage = S3Storage(config, elsewhere, tmp_path)
    with pytest.raises(StorageError, match=r"has no bucket 'none-.*create it"):
        storage.list("")
    assert S3Storage(config, settings, tmp_path).list("") == []


def test_a_missing_bucket_can_be_made(settings: Settings, tmp_path: Path) -> None:
    storage = S3Storage({"bucket": f"made-{uuid.uuid4().hex[:12]}"}, settings, tmp_path)
    assert storage._bucket.is_missing()
    storage._bucket.create()
    assert not storage._bucket.is_missing()


def test_the_secret_key_is_not_shown(settings: Settings) -> None:
    storage = of_the_platform(settings, Path())
    assert settings.s3.secret_access_key not in repr(vars(storage))
