"""The code location: what Dagster loads, here and on Kubernetes."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg

import mlplatform.defs
from mlplatform.resources.executors import executor_for
from mlplatform.resources.io_managers import FrameIOManager, SnapshotIOManager, TableIOManager
from mlplatform.resources.stores import Stores
from mlplatform.settings import Settings

# Dagster would warn of parts that we use, and pin, in some hundred lines at each load.
for _category in (dg.BetaWarning, dg.PreviewWarning, dg.SupersessionWarning):
    warnings.filterwarnings("ignore", category=_category)


def resources() -> dict[str, object]:
    """What assets ask for by name."""
    stores = Stores()
    return {
        "stores": stores,
        "table_io_manager": TableIOManager(stores=stores),
        "snapshot_io_manager": SnapshotIOManager(stores=stores),
        "frame_io_manager": FrameIOManager(stores=stores),
    }


def components() -> dg.Definitions:
    """What the folders of `mlplatform.defs` declare.

    Asked for the root as a whole, Dagster would also import every component library that is
    installed, to describe its types (dagster-aws: a CPU second in each run and code server).
    """
    folder = Path(mlplatform.defs.__path__[0])
    tree = dg.ComponentTree.from_module(defs_module=mlplatform.defs, project_root=folder.parents[1])
    return dg.Definitions.merge(tree.build_defs(folder), dg.Definitions(component_tree=tree))


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions.merge(
        components(),
        dg.Definitions(resources=resources(), executor=executor_for(Settings.load().executor)),
    )
