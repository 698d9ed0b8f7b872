"""`make soak`: two hundred jobs while every process of the control plane is killed again and again.

python -m mlplatform_tests.faults.soak_control_plane --jobs 200 --kills 80
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from mlplatform.local.stack import running_stack
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.faults.control_planes import control_plane, troubled

WORKERS = 4
SECONDS_BETWEEN_KILLS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=80)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"{options.jobs} jobs, {options.kills} kills, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        home.mkdir()
        services = {"MLPLATFORM_STACK_SERVICES": "s3,redis,postgresql"}
        with running_stack(Settings({"MLPLATFORM_DATA_DIRECTORY": directory, **services})) as stack:
            settings = Settings(stack.variables)
            variables = {
                "MLPLATFORM_DATABASE_URL": settings.database_url,
                "MLPLATFORM_S3_ENDPOINT_URL": settings.s3.endpoint_url or "",
                "MLPLATFORM_S3_BUCKET": settings.s3.bucket,
                "AWS_ACCESS_KEY_ID": settings.s3.access_key_id,
                "AWS_SECRET_ACCESS_KEY": settings.s3.secret_access_key,
            }
            with (
                fresh_database(settings.database_url) as database,
                control_plane(home, database, variables, WORKERS) as plane,
            ):
                began = time.monotonic()
                seconds = SECONDS_BETWEEN_KILLS * options.kills
                troubled(plane, options.jobs, options.kills, random.Random(options.seed), seconds)
                print(f"each ended once, as it should, after {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
