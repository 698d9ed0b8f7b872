"""Two hundred jobs on four workers that are killed and stopped at any moment.

python -m mlplatform_tests.worker.soak [--jobs 200] [--workers 4] [--seed …]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from mlplatform.local.stack import running_stack
from mlplatform.settings import Settings
from mlplatform_tests.worker.mayhem import mayhem
from mlplatform_tests.worker.plane import plane


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        services = "s3,postgresql"
        settings = Settings({"MLPLATFORM_DATA_DIRECTORY": folder, "MLPLATFORM_STACK_SERVICES": services})
        began = time.monotonic()
        with running_stack(settings) as stack, plane(Settings(stack.variables)) as made:
            hurt = mayhem(made, Path(folder), options.jobs, options.workers, options.seed)
    print(f"{options.jobs} jobs, {hurt} workers killed or stopped, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
