"""What the control plane asks of Dagster: over Dagit's GraphQL, so that no process of it loads Dagster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from mlplatform.errors import PlatformError, TransientError
from mlplatform.io.control_plane.run_tags import JOB_TAG, TRACE_TAG

LOCATION = "mlplatform.control_plane_definitions"
REPOSITORY = "__repository__"
LOCATION_TAG = "dagster/code_location"
TIMEOUT_SECONDS = 10.0
# A reload starts a process that imports Dagster and reads the definitions.
RELOAD_SECONDS = 120.0
LONGEST_MESSAGE = 1000
MOST_RUNS = 1000
# In one request, which has to be answered in time.
MOST_QUESTIONS = 100
EVENTS_A_PAGE = 1000


class DagsterUnreachable(TransientError):
    """Dagit, or the process of a code location, does not answer.

    What was asked for may have happened all the same: look for the run by its tag before asking again.
    """


class DagsterRefused(PlatformError):
    """Dagster will not; the message is its own sentence."""


@dataclass(frozen=True)
class Run:
    """A run as Dagster shows it; `status` is one of its own words (QUEUED, STARTED, FAILURE, …)."""

    run_id: str
    job_name: str
    status: str
    tags: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def job_id(self) -> str | None:
        """The job of the control plane that it runs."""
        return self.tags.get(JOB_TAG)

    @property
    def will_retry(self) -> bool | None:
        """Whether Dagster begins a failed run again by itself, in another run.

        None: it has not decided yet, which comes a moment after the failure.
        """
        decided = self.tags.get("dagster/will_retry")
        if self.status == "FAILURE" and decided is None:
            return None
        return decided == "true"

    @property
    def retried_by(self) -> str | None:
        """The run by which Dagster has begun it again."""
        return self.tags.get("dagster/auto_retry_run_id")


@dataclass(frozen=True)
class Schedule:
    """A schedule of a code location, and whether Dagster evaluates it."""

    name: str
    cron: str
    running: bool


class Dagster:
    """Dagit at an address such as http://127.0.0.1:3000. Several threads may share one.

    All methods raise DagsterUnreachable or DagsterRefused.
    """

    def __init__(self, url: str, location: str = LOCATION, timeout: float = TIMEOUT_SECONDS) -> None:
        self.url = url.rstrip("/")
        self.location = location
        self._client = httpx.Client(timeout=timeout)

    def close(self) -> None:
        self._client.close()

    def launch(
        self,
        job: str,
        tags: Mapping[str, str],
        run_config: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
        location: str | None = None,
    ) -> str:
        """Puts a run of a job into Dagster's queue, and returns its id.

        A code location whose process has died stays dead until it is reloaded: so this does, once.
        """
        if traceparent:
            tags = {**tags, TRACE_TAG: traceparent}
        params = {
            "selector": {
                "repositoryLocationName": location or self.location,
                "repositoryName": REPOSITORY,
                "jobName": job,
            },
            "runConfigData": dict(run_config or {}),
            "executionMetadata": {"tags": _tags(tags)},
        }
        try:
            launched = self._ask(LAUNCH, "launchRun", params=params)
        except _CodeServerGone:
            if why := self.reload(location):
                raise DagsterRefused(f"the definitions cannot be loaded: {why}") from None
            launched = self._ask(LAUNCH, "launchRun", params=params)
        return launched["run"]["runId"]

    def runs(
        self,
        tags: Mapping[str, str] | None = None,
        updated_after: datetime | None = None,
        run_ids: Sequence[str] | None = None,
    ) -> list[Run]:
        """The newest thousand of the runs that have all of the tags, changed since, and are among the ids."""
        asked: dict[str, Any] = {}
        if tags:
            asked["tags"] = _tags(tags)
        if updated_after is not None:
            asked["updatedAfter"] = updated_after.timestamp()
        if run_ids is not None:
            if not run_ids:
                return []
            asked["runIds"] = list(run_ids)
        found = self._ask(RUNS, "runsOrError", filter=asked, limit=MOST_RUNS)
        return [_run(each) for each in found["results"]]

    def runs_of(self, job_ids: Sequence[str]) -> dict[str, list[Run]]:
        """The runs of each of these jobs of the control plane, newest first, by few requests."""
        parts = (job_ids[at : at + MOST_QUESTIONS] for at in range(0, len(job_ids), MOST_QUESTIONS))
        return {job_id: runs for part in parts for job_id, runs in self._runs_of(part).items()}

    def _runs_of(self, job_ids: Sequence[str]) -> dict[str, list[Run]]:
        # Dagster takes one value for each tag, and as many questions in one request as one likes.
        names = {f"job{number}": job_id for number, job_id in enumerate(job_ids)}
        declared = ", ".join(f"${name}: RunsFilter!" for name in names)
        asked = "\n".join(f"{name}: runsOrError(filter: ${name}) {{ {RUNS_FOUND} }}" for name in names)
        filters = {name: {"tags": _tags({JOB_TAG: job_id})} for name, job_id in names.items()}
        answer = self._post(f"query({declared}) {{ {asked} }}", filters, None)
        return {
            job_id: [_run(each) for each in _fine(answer[name])["results"]] for name, job_id in names.items()
        }

    def terminate(self, run_id: str, at_once: bool = False) -> None:
        """Takes a run out of the queue, or interrupts it. One that has ended stays as it is.

        Args:
            at_once: call it cancelled without waiting for its process, which may be gone.
        """
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if at_once else "SAFE_TERMINATE"
        try:
            self._ask(TERMINATE, "terminateRun", run=run_id, policy=policy)
        except DagsterRefused:
            [run] = self.runs(run_ids=[run_id]) or [None]
            if run is None or run.status not in ENDED:
                raise

    def reload(self, location: str | None = None) -> str | None:
        """Loads a code location's definitions anew; runs that are under way go on with the old ones.

        Dagit knows the new definitions when this returns. Dagster's daemon looks once a minute, so a new
        schedule is evaluated at the first minute after that; see `start_schedule`.

        Returns:
            Why the definitions cannot be loaded; None if they were.
        """
        name = location or self.location
        entry = None
        # The first after the death of its process fails, although it starts a new one.
        for _ in range(2):
            # Only the error: asked what is in the location, Dagit answers from before the reload.
            entry = self._ask(RELOAD, "reloadRepositoryLocation", RELOAD_SECONDS, location=name)
            error = entry["locationOrLoadError"]
            if error["__typename"] != "PythonError":
                return None
            if "DagsterUserCodeUnreachableError" not in error["message"]:
                return _sentence(error)
        raise DagsterUnreachable(f"{self.url}: the code location {name} cannot be reached")

    def schedules(self, location: str | None = None) -> list[Schedule]:
        """All schedules of a code location."""
        found = self._ask(SCHEDULES, "schedulesOrError", repository=self._repository(location))
        return [
            Schedule(each["name"], each["cronSchedule"], each["scheduleState"]["status"] == "RUNNING")
            for each in found["results"]
        ]

    def start_schedule(self, name: str, location: str | None = None) -> None:
        """Evaluates a schedule from now on.

        Dagster's daemon makes up for the times that pass before it looks at the code location again. Of a
        schedule that only runs because its definition says so, it would miss them: hence it is stopped first.
        """
        self.stop_schedule(name, location)
        self._ask(START, "startSchedule", schedule={**self._repository(location), "scheduleName": name})

    def stop_schedule(self, name: str, location: str | None = None) -> None:
        """Evaluates a schedule no more, from now on."""
        selector = {**self._repository(location), "scheduleName": name}
        found = self._ask(SCHEDULE, "scheduleOrError", schedule=selector)
        self._ask(STOP, "stopRunningSchedule", id=found["scheduleState"]["id"])

    def failure(self, run_id: str) -> str | None:
        """Why a run failed, in one short text: its first step that did, or what became of its process."""
        of_the_run = None
        for event in self._events(run_id):
            kind = event["__typename"]
            error = event.get("error")
            if kind == "ExecutionStepFailureEvent":
                return f"{event['stepKey']}: {_sentence(error)}" if error else event["message"]
            if kind == "RunFailureEvent":
                of_the_run = _sentence(error) if error else event["message"]
            elif kind == "EngineEvent" and "terminated by" in event["message"]:
                # The run's own event only says that it was marked from outside.
                return _short(event["message"].removeprefix("[DagsterApiServer] "))
        return of_the_run and _short(of_the_run)

    def _events(self, run_id: str) -> Iterable[dict[str, Any]]:
        cursor = None
        while True:
            run = self._ask(EVENTS, "runOrError", run=run_id, cursor=cursor, limit=EVENTS_A_PAGE)
            page = run["eventConnection"]
            yield from page["events"]
            if not page["hasMore"]:
                return
            cursor = page["cursor"]

    def _repository(self, location: str | None) -> dict[str, str]:
        return {"repositoryName": REPOSITORY, "repositoryLocationName": location or self.location}

    def _ask(self, query: str, name: str, seconds: float | None = None, **variables: Any) -> dict[str, Any]:
        return _fine(self._post(query, variables, seconds)[name])

    def _post(self, query: str, variables: Mapping[str, Any], seconds: float | None) -> dict[str, Any]:
        try:
            answer = self._client.post(
                f"{self.url}/graphql",
                json={"query": query, "variables": variables},
                timeout=self._client.timeout if seconds is None else seconds,
            )
        except httpx.HTTPError as error:
            raise DagsterUnreachable(f"{self.url}: {str(error) or type(error).__name__}") from error
        try:
            # Errors of Dagster's own come with status 500 and say more.
            said = answer.json()
            data, errors = said.get("data"), said.get("errors")
        except (ValueError, AttributeError):
            data = errors = None
        if data is not None:
            return data
        if answer.status_code >= 500:
            raise DagsterUnreachable(f"{self.url} answers with status {answer.status_code}")
        said = errors[0]["message"] if errors else f"status {answer.status_code}, which is not Dagit's"
        raise DagsterRefused(f"{self.url}: {_short(said)}")


class _CodeServerGone(DagsterUnreachable):
    """Dagit answers, the process of the code location does not."""


ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})

REFUSALS = frozenset(
    {
        "ConflictingExecutionParamsError",
        "InvalidOutputError",
        "InvalidPipelineRunsFilterError",
        "InvalidStepError",
        "InvalidSubsetError",
        "NoModeProvidedError",
        "PipelineNotFoundError",
        "PresetNotFoundError",
        "PythonError",
        "ReloadNotSupported",
        "RepositoryLocationNotFound",
        "RepositoryNotFoundError",
        "RunConfigValidationInvalid",
        "RunConflict",
        "RunNotFoundError",
        "ScheduleNotFoundError",
        "TerminateRunFailure",
        "UnauthorizedError",
    }
)


def _fine(answer: dict[str, Any] | None) -> dict[str, Any]:
    if answer is None:
        raise DagsterRefused("Dagster answers with nothing")
    if answer["__typename"] not in REFUSALS:
        return answer
    message = answer.get("message") or "; ".join(each["message"] for each in answer.get("errors", ()))
    if "DagsterUserCodeUnreachableError" in message or "_InactiveRpcError" in message:
        raise _CodeServerGone(f"Dagster cannot reach the process of the code location: {_short(message)}")
    raise DagsterRefused(_sentence(answer) if answer["__typename"] == "PythonError" else _short(message))


def _sentence(error: Mapping[str, Any]) -> str:
    """What the innermost error says: those around it only say where it came from."""
    while error.get("cause"):
        error = error["cause"]
    return _short(error["message"])


def _short(message: str) -> str:
    # Dagster puts the name of the class in front.
    text = message.strip()
    first, _, rest = text.partition(": ")
    if rest and "." in first and " " not in first:
        text = rest
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} …"


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _run(found: Mapping[str, Any]) -> Run:
    return Run(
        run_id=found["runId"],
        job_name=found["jobName"],
        status=found["status"],
        tags={tag["key"]: tag["value"] for tag in found["tags"]},
        created_at=datetime.fromtimestamp(found["creationTime"], UTC),
        updated_at=datetime.fromtimestamp(found["updateTime"] or found["creationTime"], UTC),
        started_at=_moment(found["startTime"]),
        ended_at=_moment(found["endTime"]),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# Deep enough for what definitions raise, of which Dagster makes causes.
ERROR = "message cause { message cause { message cause { message } } }"
REFUSED = "__typename ... on Error { message }"
BROKEN = f"... on PythonError {{ {ERROR} }}"

LAUNCH = f"""mutation($params: ExecutionParams!) {{ launchRun(executionParams: $params) {{
    {REFUSED} {BROKEN}
    ... on LaunchRunSuccess {{ run {{ runId }} }}
    ... on RunConfigValidationInvalid {{ errors {{ message }} }} }} }}"""
RUNS_FOUND = f"""{REFUSED}
    ... on Runs {{ results {{
        runId jobName status creationTime updateTime startTime endTime tags {{ key value }} }} }}"""
RUNS = f"""query($filter: RunsFilter!, $limit: Int!) {{
    runsOrError(filter: $filter, limit: $limit) {{ {RUNS_FOUND} }} }}"""
TERMINATE = f"""mutation($run: String!, $policy: TerminateRunPolicy!) {{
    terminateRun(runId: $run, terminatePolicy: $policy) {{
        {REFUSED} ... on TerminateRunFailure {{ message }} }} }}"""
RELOAD = f"""mutation($location: String!) {{ reloadRepositoryLocation(repositoryLocationName: $location) {{
    {REFUSED}
    ... on ReloadNotSupported {{ message }} ... on RepositoryLocationNotFound {{ message }}
    ... on WorkspaceLocationEntry {{ locationOrLoadError {{ __typename {BROKEN} }} }} }} }}"""
SCHEDULES = f"""query($repository: RepositorySelector!) {{
    schedulesOrError(repositorySelector: $repository) {{
        {REFUSED}
        ... on Schedules {{ results {{ name cronSchedule scheduleState {{ status }} }} }} }} }}"""
SCHEDULE = f"""query($schedule: ScheduleSelector!) {{ scheduleOrError(scheduleSelector: $schedule) {{
    {REFUSED} ... on Schedule {{ scheduleState {{ id }} }} }} }}"""
START = f"""mutation($schedule: ScheduleSelector!) {{ startSchedule(scheduleSelector: $schedule) {{
    {REFUSED} }} }}"""
STOP = f"""mutation($id: String!) {{ stopRunningSchedule(id: $id) {{
    {REFUSED} }} }}"""
EVENTS = f"""query($run: ID!, $cursor: String, $limit: Int!) {{ runOrError(runId: $run) {{
    {REFUSED}
    ... on Run {{ eventConnection(afterCursor: $cursor, limit: $limit) {{ cursor hasMore events {{
        __typename
        ... on MessageEvent {{ message stepKey }}
        ... on ExecutionStepFailureEvent {{ error {{ {ERROR} }} }}
        ... on RunFailureEvent {{ error {{ {ERROR} }} }} }} }} }} }} }}"""
