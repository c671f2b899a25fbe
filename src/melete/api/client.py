"""A small typed client of the API: records in place of JSON, lists as iterators that ask for the next page themselves.

    with Client("http://127.0.0.1:8675") as lab:
        for run in lab.runs(process="llm.pretrain"):
            print(run.name, run.state, lab.curves(run.id, ["loss"]).figures[0].last)
        job = lab.submit(Path("job.yaml").read_text())

What the server refuses is an `ApiError` with the server's own message. Needs httpx and no web framework.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from melete import find
from melete.api import episode_records, job_records, model_records, records
from melete.errors import ApiError, MissingExtraError, ServerError, StorageError
from melete.runs.folder import storage_error

if TYPE_CHECKING:
    import httpx

PREFIX = "/api/v1"
Record = TypeVar("Record", bound=BaseModel)


class Client:
    """Asks one server; use it in a `with`, or close it.

    Args:
        url: where `melete serve` listens.
        token: what the server asks for, if it does.
        timeout_s: the longest silence of the server that is waited for.

    Raises:
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8675", token: str | None = None, timeout_s: float = 30.0
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise MissingExtraError("httpx", find.EXTRA_OF["httpx"]) from error
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._unreachable: type[Exception] = httpx.HTTPError
        self._http = httpx.Client(base_url=url.rstrip("/") + PREFIX, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connections back."""
        self._http.close()

    def get(self, path: str, **asked: Any) -> Any:
        """The JSON of any path below /api/v1; parameters that are None are left out.

        Raises:
            ApiError: the server refuses.
            ServerError: it does not answer.
        """
        wanted = {name: value for name, value in asked.items() if value is not None}
        return self._asked("GET", path, params=wanted)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What comes of a POST to any path below /api/v1; errors as of `get`."""
        return self._asked("POST", path, json=dict(body or {}))

    def put(self, path: str, body: Mapping[str, Any], if_match: str | None = None) -> Any:
        """What comes of a PUT; with `if_match` only over what the server has under that tag. Errors as of `get`."""
        headers = {"If-Match": f'"{if_match}"'} if if_match is not None else {}
        return self._asked("PUT", path, json=dict(body), headers=headers)

    def _asked(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.request(method, path, **options)
        except self._unreachable as error:
            raise self._away(error) from error
        if not answer.is_success:
            raise refusal(answer)
        return answer.json() if answer.content else None

    def each(self, path: str, **asked: Any) -> Iterator[dict[str, Any]]:
        """Every row of any list, page after page; `limit` is the size of a page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **asked, cursor=cursor)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def status(self) -> records.Status:
        """What runs now, and on what."""
        return records.Status.model_validate(self.get("/status"))

    def runs(
        self,
        *,
        state: str | None = None,
        process: str | None = None,
        name: str | None = None,
        job: str | None = None,
        everywhere: bool = False,
        since_s: float | None = None,
        until_s: float | None = None,
    ) -> Iterator[records.RunSummary]:
        """Runs, newest first."""
        asked = {"state": state, "process": process, "name": name, "job": job}
        times = {"since_s": since_s, "until_s": until_s, "everywhere": everywhere or None}
        return self._each(records.RunSummary, "/runs", **asked, **times)

    def run(self, run: str) -> records.RunDetail:
        """One run by its id."""
        return records.RunDetail.model_validate(self.get(_path("runs", run)))

    def curves(
        self,
        run: str,
        keys: Sequence[str] = (),
        *,
        first: float | None = None,
        last: float | None = None,
        most: int | None = None,
    ) -> records.Curves:
        """Figures of a run with their points, or all of them without any; waits until all of them were read.

        Args:
            run: its id.
            keys: names of figures, 20 at most.
            first: first step.
            last: last step.
            most: points of each at most.
        """
        asked = {"keys": ",".join(keys) or None, "from": first, "to": last, "max": most}
        while True:
            found = records.Curves.model_validate(self.get(_path("runs", run, "metrics"), **asked))
            if found.complete:
                return found

    def log(
        self, run: str, *, limit: int = 200, search: str | None = None, after: int | None = None
    ) -> records.LogPage:
        """The last lines of a log, or the first ones after a place (the `end` of an answer before)."""
        asked = {"limit": limit, "search": search, "after": after}
        return records.LogPage.model_validate(self.get(_path("runs", run, "log"), **asked))

    def follow(self, run: str, *, after: int | None = None) -> Iterator[records.LogLine]:
        """Lines of a run's log as they are written, until the run has ended.

        Args:
            run: its id.
            after: a place to begin after, such as the `end` of a page; without one it begins with the last lines.

        Raises:
            ApiError: there is no such run, or its folder was deleted meanwhile.
            ServerError: the server went away.
        """
        return self._followed(_path("runs", run, "log", "stream"), after)

    def follow_job(
        self, job: str, step: str | None = None, *, after: int | None = None
    ) -> Iterator[records.LogLine]:
        """Lines of what the processes of a job say, or one of them, until the job has ended; see `follow`."""
        return self._followed(_path("jobs", job, "log", "stream"), after, step=step)

    def samples(self, run: str, name: str | None = None) -> Iterator[records.Sample]:
        """Samples of a run, the newest step first."""
        return self._each(records.Sample, _path("runs", run, "samples"), name=name)

    def files(self, run: str, folder: str | None = None) -> Iterator[records.RunFile]:
        """Files of a run by path."""
        return self._each(records.RunFile, _path("runs", run, "files"), folder=folder)

    def download(self, run: str, file: str, to: Path) -> Path:
        """Writes a file of a run to a path, piece by piece, and returns that.

        Raises:
            ApiError: there is no such file that may be seen.
            StorageError: it cannot be written; nothing half-written is left.
        """
        draft = to.with_name(f".{to.name}.part")
        try:
            with self._http.stream("GET", _path("runs", run, "files", *file.split("/"))) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise refusal(answer)
                with draft.open("wb") as out:
                    for piece in answer.iter_bytes():
                        out.write(piece)
            draft.replace(to)
        except self._unreachable as error:
            raise self._away(error) from error
        except OSError as error:
            failed: StorageError = storage_error(to, error)
            raise failed from error
        finally:
            draft.unlink(missing_ok=True)
        return to

    def note(self, run: str, text: str | None = None, *, over: records.Note | None = None) -> records.Note:
        """The note of a run, or what it is once `text` was written.

        Args:
            run: its id.
            text: what to write; None only reads.
            over: the note that the text is based on; another one is not written over.

        Raises:
            ApiError: somebody else has written it since (412), or there is no such run.
        """
        path = _path("runs", run, "note")
        if text is None:
            return records.Note.model_validate(self.get(path))
        revision = over.revision if over is not None else None
        return records.Note.model_validate(self.put(path, {"text": text}, revision))

    def stop_run(self, run: str) -> records.StopAsked:
        """Asks a run that no queue looks after to save a checkpoint and to end."""
        return records.StopAsked.model_validate(self.post(_path("runs", run, "stop")))

    def jobs(self, *, state: str | None = None, name: str | None = None) -> Iterator[job_records.JobSummary]:
        """Jobs of the queue, newest first."""
        return self._each(job_records.JobSummary, "/jobs", state=state, name=name)

    def job(self, job: str) -> job_records.JobDetail:
        """One job by id, the beginning of one, name or `latest`."""
        return job_records.JobDetail.model_validate(self.get(_path("jobs", job)))

    def submit(
        self, text: str, *, priority: int = 0, limit_batches: int | None = None
    ) -> job_records.JobDetail:
        """Puts the text of a job file into the queue.

        Raises:
            ApiError: the text is wrong; the message names line and key.
        """
        body = {"text": text, "priority": priority, "limit_batches": limit_batches}
        return job_records.JobDetail.model_validate(self.post("/jobs", body))

    def check(self, text: str) -> job_records.Checked:
        """Everything that is wrong in the text of a job file, or what it would do."""
        return job_records.Checked.model_validate(self.post("/jobs/check", {"text": text}))

    def pause(self, job: str) -> job_records.JobDetail:
        """Holds a job back; what runs saves a checkpoint and frees its slot."""
        return self._job_asked(job, "pause")

    def stop(self, job: str, *, kill: bool = False) -> job_records.JobDetail:
        """Stops a job; what runs saves a checkpoint first, unless it is killed."""
        return self._job_asked(job, "kill" if kill else "stop")

    def resume(self, job: str) -> job_records.JobDetail:
        """Continues a job that was paused or stopped."""
        return self._job_asked(job, "resume")

    def retry(
        self, job: str, changes: Mapping[str, Mapping[str, Any]] | None = None
    ) -> job_records.JobDetail:
        """Tries a job again; `changes` maps process names to config keys with new values."""
        return self._job_asked(
            job, "retry", {"changes": {name: dict(of) for name, of in (changes or {}).items()}}
        )

    def job_log(
        self, job: str, *, step: str | None = None, limit: int = 200, search: str | None = None,
        after: int | None = None,
    ) -> job_records.JobLogPage:  # fmt: skip
        """What a job's processes, or one of them, said last, or after a place (the `end` of an answer before)."""
        asked = {"step": step, "limit": limit, "search": search, "after": after}
        return job_records.JobLogPage.model_validate(self.get(_path("jobs", job, "log"), **asked))

    def workers(self) -> Iterator[job_records.Worker]:
        """Who carries out processes."""
        return self._each(job_records.Worker, "/workers")

    def examples(self) -> Iterator[job_records.Example]:
        """Job files to begin with."""
        return self._each(job_records.Example, "/examples")

    def models(self, kind: str | None = None) -> Iterator[model_records.Model]:
        """Trained models, newest first."""
        return self._each(model_records.Model, "/models", kind=kind)

    def model(self, model: str) -> model_records.ModelDetail:
        """One trained model by its run's id or name."""
        return model_records.ModelDetail.model_validate(self.get(_path("models", model)))

    def deploy(
        self, model: str, *, name: str = "", version: str = "", scenario: str = "", copy_weights: bool = False
    ) -> model_records.Deployed:
        """Makes the next version of an agent of a run or `run:step` and puts it into use."""
        body = {
            "model": model, "name": name, "version": version, "scenario": scenario,
            "copy_weights": copy_weights,
        }  # fmt: skip
        return model_records.Deployed.model_validate(self.post("/deployments", body))

    def roll_back(self, name: str) -> model_records.Deployed:
        """Puts the version of an agent before the one in use into use again."""
        return model_records.Deployed.model_validate(self.post(_path("deployments", name, "roll-back")))

    def episodes(self, run: str, **wanted: Any) -> Iterator[episode_records.EpisodeSummary]:
        """Episodes of a run that practised or evaluated agents, newest first; filters such as `phase` and `solved`."""
        return self._each(episode_records.EpisodeSummary, _path("runs", run, "episodes"), **wanted)

    def episode(self, run: str, episode: str) -> episode_records.EpisodeDetail:
        """One episode with its first 200 steps."""
        return episode_records.EpisodeDetail.model_validate(
            self.get(_path("runs", run, "episodes", episode), limit=200)
        )

    def proof(self, run: str) -> episode_records.Proof:
        """What practice changed, or an evaluation found."""
        return episode_records.Proof.model_validate(self.get(_path("runs", run, "proof")))

    def lineage(self, run: str) -> records.Lineage:
        """From data to deployment."""
        return records.Lineage.model_validate(self.get(_path("runs", run, "lineage")))

    def checkpoints(self, run: str | None = None, kind: str | None = None) -> Iterator[records.Checkpoint]:
        """All checkpoints of a run, or the newest of each run."""
        return self._each(records.Checkpoint, "/checkpoints", run=run, kind=kind)

    def deployments(self) -> Iterator[records.Deployment]:
        """Deployed agents."""
        return self._each(records.Deployment, "/deployments")

    def processes(self) -> Iterator[records.Process]:
        """What can be started."""
        return self._each(records.Process, "/processes")

    def process(self, name: str) -> records.ProcessDetail:
        """One process, with the schema and defaults of its options."""
        return records.ProcessDetail.model_validate(self.get(_path("processes", name)))

    def datasets(
        self, kind: str | None = None, at_hand: bool | None = None
    ) -> Iterator[records.DatasetSummary]:
        """Datasets by name."""
        return self._each(records.DatasetSummary, "/datasets", kind=kind, at_hand=at_hand)

    def dataset(self, name: str) -> records.DatasetDetail:
        """One dataset."""
        return records.DatasetDetail.model_validate(self.get(_path("datasets", name)))

    def rows(
        self, dataset: str, split: str | None = None, search: str | None = None
    ) -> Iterator[records.DatasetRow]:
        """Items of a split in order."""
        return self._each(records.DatasetRow, _path("datasets", dataset, "rows"), split=split, search=search)

    def scenarios(self) -> Iterator[records.ScenarioSummary]:
        """Task families for agents."""
        return self._each(records.ScenarioSummary, "/scenarios")

    def scenario(self, name: str) -> records.ScenarioDetail:
        """One scenario."""
        return records.ScenarioDetail.model_validate(self.get(_path("scenarios", name)))

    def _job_asked(self, job: str, what: str, body: Mapping[str, Any] | None = None) -> job_records.JobDetail:
        return job_records.JobDetail.model_validate(self.post(_path("jobs", job, what), body))

    def _each(self, record: type[Record], path: str, **asked: Any) -> Iterator[Record]:
        return (record.model_validate(row) for row in self.each(path, **asked))

    def _followed(self, path: str, after: int | None, **asked: str | None) -> Iterator[records.LogLine]:
        """The lines of server-sent events, until the one that says `end`."""
        wanted = {name: value for name, value in {**asked, "after": after}.items() if value is not None}
        event = ""
        try:
            with self._http.stream("GET", path, params=wanted) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise refusal(answer)
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        event = value
                    if name != "data" or event == "end":
                        continue
                    if event == "problem":
                        told = json.loads(value)["error"]
                        raise ApiError(str(told["message"]), 404, told.get("code"))
                    yield records.LogLine.model_validate_json(value)
        except self._unreachable as error:
            raise self._away(error) from error
        if event != "end":
            raise ServerError(
                f"The server at {self._http.base_url} ended a log before its run.",
                next_step="Go on from the last line that was read, with after=.",
            )

    def _away(self, error: Exception) -> ServerError:
        return ServerError(
            f"The server at {self._http.base_url} does not answer ({error}).",
            next_step="Start it with: melete serve --no-model",
        )


def refusal(answer: httpx.Response) -> ApiError:
    """The server's refusal as an error."""
    try:
        told = answer.json()["error"]
        return ApiError(str(told["message"]), answer.status_code, told.get("code"))
    except (ValueError, KeyError, TypeError):
        return ApiError(
            f"The server answered {answer.status_code}: {answer.text[:200]}", answer.status_code, None
        )


def _path(*parts: str) -> str:
    """A path of parts, none of which can lead elsewhere."""
    quoted = (quote(part, safe="@:") for part in parts)
    return "/" + "/".join(part.replace(".", "%2E") if part in (".", "..") else part for part in quoted)
