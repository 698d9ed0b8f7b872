"""The pipeline's models of one recipe, as its last snapshots have them: to be asked, not to be taught."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from mlplatform.domain.families import Families
from mlplatform.domain.model import Model, ModelSet
from mlplatform.domain.recipe import Recipe
from mlplatform.errors import TransientError
from mlplatform.io import declaration
from mlplatform.io.results import Frames
from mlplatform.io.states import versions_of
from mlplatform.io.stores import Stores
from mlplatform.settings import FIRST_SERVICE_SHARD

LOOK_SECONDS = 5.0
# So long a request waits for a look; then it takes what was seen before.
PATIENCE_SECONDS = 1.0

log = logging.getLogger(__name__)


class NotSeen(TransientError):
    """The pipeline's snapshots were never read."""


class PipelineModels:
    """What the pipeline's snapshots hold, looked up again when it is asked for and they have changed."""

    def __init__(self, recipe: Recipe, families: Families, stores: Stores) -> None:
        self._recipe = recipe
        self._families = families
        self._stores = stores
        self._versions = versions_of((recipe,), families)
        self._etags: dict[int, str] = {}
        self._shards: dict[int, dict[str, Model | None]] = {}
        self._models: dict[str, Model | None] = {}
        self._looked_at = -LOOK_SECONDS
        self._seen = False
        self._looking: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, f"pipeline-{recipe.name}")

    @property
    def models(self) -> dict[str, Model]:
        """The models as they were last seen, by series."""
        return {series_id: model for series_id, model in self._models.items() if model is not None}

    def owns(self, series_id: str) -> bool:
        """Whether the pipeline had learned the series when it was last looked."""
        return series_id in self._models

    def claims(self, series_id: str) -> bool:
        """Whether it learns the series, or will: for who would learn it otherwise.

        Raises:
            NotSeen: the pipeline's series have not been seen since the start.
        """
        if not self._seen:
            raise NotSeen(f"whether series {series_id!r} is the pipeline's is not known yet; try again")
        return self.owns(series_id) or series_id in declaration.replayed()

    def model(self, series_id: str) -> Model | None:
        """None also for a series whose snapshot was made by other versions than these."""
        return self._models.get(series_id)

    async def look(self) -> None:
        """Sees what has changed since a look some seconds ago; while the store is away, nothing has."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        await asyncio.wait([self._looking], timeout=PATIENCE_SECONDS)

    async def close(self) -> None:
        if self._looking is not None:
            await asyncio.wait([self._looking])
        self._thread.shutdown()

    async def _look(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            shards, etags = await loop.run_in_executor(self._thread, self._read)
            # At once, so that nobody sees a part of it.
            self._shards, self._etags = shards, etags
            self._models = {name: model for models in shards.values() for name, model in models.items()}
            self._seen = True
        except TransientError as error:
            log.warning("%s of the pipeline stay as they were: %s", self._recipe.name, error)
        except Exception:
            log.exception("%s of the pipeline stay as they were", self._recipe.name)
        finally:
            self._looked_at = time.monotonic()
            self._looking = None

    def _read(self) -> tuple[dict[int, dict[str, Model | None]], dict[int, str]]:
        name = self._recipe.name
        etags = {
            shard: etag
            for (of, shard), etag in self._stores.snapshots.etags().items()
            if of == name and shard < FIRST_SERVICE_SHARD
        }
        shards = {
            shard: self._shards[shard] if self._etags.get(shard) == etag else self._load(shard)
            for shard, etag in etags.items()
        }
        return shards, etags

    def _load(self, shard: int) -> dict[str, Model | None]:
        name = self._recipe.name
        state = self._stores.states.load(name, shard, self._versions, None)
        if state.content is None:
            log.warning("the pipeline's %s of shard %d cannot be asked: %s", name, shard, state.refused)
            # Its series are its own nevertheless.
            metrics = Frames(self._stores.objects).read(f"metrics/{name}/{shard}")
            return {} if metrics is None else dict.fromkeys(metrics["series_id"].to_pylist())
        models: ModelSet = state.content
        found = {series_id: model for (_, series_id), model in models.models.items()}
        return dict.fromkeys(models.behind) | found
