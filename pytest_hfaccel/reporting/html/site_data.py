"""From the evidence of many runs to what the support site shows: columnar, each text and each list of checks once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_hfaccel.core.devices import BUILT_IN
from pytest_hfaccel.core.results import MEANINGS, NOT_REACHED, Cause, CellResult, Status
from pytest_hfaccel.reporting.evidence import Evidence, Record, SourceRun
from pytest_hfaccel.reporting.html.page_data import (
    NUMBERS,
    Plain,
    Table,
    check_entry,
    family_of,
    machine_name,
    numbers_of,
    reproduce,
)

_STATUSES = tuple(Status)


def site_data(evidence: Evidence, hub_ids: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the index of the site: a row per class, a column per device and dtype, a record per outcome.

    Args:
        evidence: What is known.
        hub_ids: By class of transformers, or by model type: the hub ids that a search finds it by.
    """
    plain = Plain(None)
    columns, texts, checks, lists, sources = Table(), Table(), Table(), Table(), Table()
    releases = evidence.releases
    by_class: dict[str, list[Record]] = defaultdict(list)
    for record in evidence.records:
        by_class[record.result.architecture].append(record)
    rows, records = [], []
    for row, (name, members) in enumerate(by_class.items()):
        rows.append(plain(_row(name, members, hub_ids)))
        for record in members:
            result = record.result
            entries = [_frozen(check_entry(check, result, checks, texts, plain)) for check in result.checks]
            records.append(
                [
                    row,
                    columns.add((plain(result.device), plain(result.dtype))),
                    releases.index(record.release),
                    texts.add(plain(result.model)),
                    result.weights,
                    _STATUSES.index(result.status),
                    result.implementation,
                    lists.add(tuple(entries)),
                    plain(_numbers(result)),
                    sources.add((*record.runs,)),
                    int(record.is_one_of),
                    [[run, _STATUSES.index(status)] for run, status in record.before],
                    plain(reproduce(result)),
                ]
            )
    return {
        "releases": releases,
        "runs": [plain(_run(run)) for run in evidence.runs],
        "statuses": [[str(status), status.is_bad] for status in _STATUSES],
        "worst_first": [str(status) for status in sorted(_STATUSES, key=lambda status: status.rank)],
        "causes": {str(cause): MEANINGS[cause] for cause in Cause},
        "not_reached": NOT_REACHED,
        "numbers": NUMBERS,
        "rows": rows,
        "columns": columns.values(),
        "device_kinds": list(BUILT_IN),
        "checks": checks.values(),
        "check_lists": lists.values(),
        "sources": sources.values(),
        "texts": texts.values(),
        "records": records,
    }


def _numbers(result: CellResult) -> list[float | None]:
    # A support matrix has no seconds, which must not look like a very quick test.
    measured = dict(zip(NUMBERS, numbers_of(result), strict=True))
    return list({**measured, "seconds": measured["seconds"] or None}.values())


def _frozen(entry: Any) -> Any:
    return tuple(entry) if isinstance(entry, list) else entry


def _row(name: str, members: Sequence[Record], hub_ids: Mapping[str, Sequence[str]]) -> list[Any]:
    """Class, model types, task, family, hub ids of the class, hub ids of its model types."""
    results = [record.result for record in members]
    # A model of a sweep over all classes is named by its model type and its class.
    types = sorted(
        {each.model.removesuffix(f"/{name}") for each in results if each.model.endswith(f"/{name}")},
        key=lambda kind: (not name.lower().startswith(re.sub(r"[^a-z0-9]", "", kind.lower())), kind),
    )
    tested = {each.model for each in results if not each.model.endswith(f"/{name}")}
    task = next((each.task for each in results if each.task), "")
    own = dict.fromkeys([*sorted(tested), *hub_ids.get(name, ())])
    shared = dict.fromkeys(one for kind in types for one in hub_ids.get(kind, ()) if one not in own)
    family = family_of(f"{types[0]}/{name}" if types else results[0].model, name, task)
    return [name, types, task, family, list(own), list(shared)]


def _run(run: SourceRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "command": run.command,
        "started": run.started,
        "versions": dict(run.versions),
        "machine": machine_name(run.machine),
        "commit": run.commit,
    }
