"""The target of a mutation: the domains of the jobs and assets that it affects. Not here: authorization (`roles`).

A job's domain is in its tag; otherwise its domains are its assets' groups. Unknown domains require the right in all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_backfills.instance.door.mutations import DOMAIN_TAG, RIGHT_TAG
from dagster_backfills.instance.roles import Right

Domains = frozenset[str] | None  # None: unknown, which counts as all


@dataclass(frozen=True)
class Target:
    """A target's description, its domains, and the right that it needs in addition to the mutation's."""

    description: str
    domains: Domains
    right: Right = Right.view

    def __add__(self, other: "Target") -> "Target":
        known = self.domains is not None and other.domains is not None
        domains = (self.domains or frozenset()) | (other.domains or frozenset()) if known else None
        description = ", ".join(filter(None, (self.description, other.description)))
        return Target(description, domains, max(self.right, other.right))


_NOTHING = Target("", frozenset())


class Targets:
    """Determines targets from a request's workspace (`context`)."""

    def __init__(self, context: Any) -> None:
        self.context = context

    def of(self, arguments: Mapping[str, Any]) -> Target:
        """The target of a mutation with these parsed GraphQL arguments."""
        match arguments:
            case {"executionParams": {} as params}:
                return self._of_launch(params)
            case {"executionParamsList": launches}:
                return sum(map(self._of_launch, launches), _NOTHING)
            case {"backfillParams": params}:
                return self._of_backfill_params(params)
            case {"reexecutionParams": {"parentRunId": str(run_id)}} | {"runId": str(run_id)}:
                return self._of_id(run_id)
            case {"backfillId": str(backfill_id)}:
                return self._of_id(backfill_id)
            case {"runIds": run_ids}:
                return sum(map(self._of_id, run_ids), _NOTHING)
            case {"eventParams": {"assetKey": {"path": path}}}:
                return self._of_assets([dg.AssetKey(path)])
        return Target(", ".join(_texts(arguments)), None)

    def _of_launch(self, params: Mapping[str, Any]) -> Target:
        chosen = params["selector"]
        keys = [dg.AssetKey(key["path"]) for key in chosen.get("assetSelection") or ()]
        keys += [dg.AssetKey(check["assetKey"]["path"]) for check in chosen.get("assetCheckSelection") or ()]
        job = chosen.get("jobName") or chosen.get("pipelineName") or ""
        where = chosen["repositoryLocationName"], chosen["repositoryName"]
        return self._of_job(*where, job, keys)

    def _of_backfill_params(self, params: Mapping[str, Any]) -> Target:
        by_assets = [each["assetKey"] for each in params.get("partitionsByAssets") or () if each]
        keys = [dg.AssetKey(key["path"]) for key in [*(params.get("assetSelection") or ()), *by_assets]]
        target = self._of_assets(keys) if keys else _NOTHING
        chosen = params.get("selector")
        if not chosen:
            return target if keys else Target("", None)
        where = chosen["repositorySelector"]
        return target + self._of_partition_set(
            where["repositoryLocationName"], where["repositoryName"], chosen["partitionSetName"]
        )

    def _of_id(self, run_id: str) -> Target:
        """The target of a run or backfill ID. The two kinds of ID are distinct."""
        instance: dg.DagsterInstance = self.context.instance
        run, backfill = instance.get_run_by_id(run_id), instance.get_backfill(run_id)
        target = Target(run_id, None)
        if run is not None and run.remote_job_origin is not None:
            where = run.remote_job_origin.repository_origin
            keys = [*(run.asset_selection or ()), *(c.asset_key for c in run.asset_check_selection or ())]
            location = where.code_location_origin.location_name
            target = self._of_job(location, where.repository_name, run.job_name, keys)
        elif backfill is not None and backfill.asset_selection:
            target = self._of_assets(backfill.asset_selection)
        elif backfill is not None and backfill.partition_set_origin is not None:
            where = backfill.partition_set_origin.repository_origin
            location, name = (
                where.code_location_origin.location_name,
                backfill.partition_set_origin.partition_set_name,
            )
            target = self._of_partition_set(location, where.repository_name, name)
        return Target(run_id, target.domains, target.right)

    def _of_partition_set(self, location: str, repository: str, name: str) -> Target:
        found = self._repository(location, repository)
        jobs = [s.job_name for s in found.get_partition_sets() if s.name == name] if found else []
        return self._of_job(location, repository, jobs[0], []) if jobs else Target(name, None)

    def _of_job(self, location: str, repository: str, job: str, keys: list[dg.AssetKey]) -> Target:
        """The target of a job or of some of its assets. Reads the definition's tags, not the request's."""
        found = self._repository(location, repository)
        if found is None or not found.has_job(job):
            return Target(job, None)
        tags = found.get_full_job(job).tags
        right = Right[tags.get(RIGHT_TAG, "view")]
        domain = tags.get(DOMAIN_TAG)
        target = self._of_assets(keys or ([] if domain else found.get_asset_keys_in_job(job)))
        domains = (target.domains or frozenset()) | ({domain} if domain else frozenset())
        unknown = target.domains is None or not domains
        return Target(target.description if keys else job, None if unknown else domains, right)

    def _of_assets(self, keys: Iterable[dg.AssetKey]) -> Target:
        graph, keys = self.context.asset_graph, list(keys)
        known = all(graph.has(key) for key in keys)
        domains = frozenset(graph.get(key).group_name for key in keys) if known else None
        return Target(", ".join(key.to_user_string() for key in keys), domains)

    def _repository(self, location: str, name: str) -> Any | None:
        if not self.context.has_code_location(location):
            return None
        code_location = self.context.get_code_location(location)
        return code_location.get_repository(name) if code_location.has_repository(name) else None


def _texts(arguments: Any) -> Iterable[str]:
    """All values in a request's arguments, as its description."""
    if isinstance(arguments, Mapping):
        for value in arguments.values():
            yield from _texts(value)
    elif isinstance(arguments, list):
        for value in arguments:
            yield from _texts(value)
    elif arguments is not None:
        yield str(arguments)[:200]
