"""A run of the pipeline: its stages in order, what an earlier run has done already, and the report at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cs336_basics.command_line import UsageError
from cs336_basics.report import write_report
from cs336_data.pipeline.chain import build_chain
from cs336_data.pipeline.dedup_settings import DedupSettings
from cs336_data.pipeline.deduplication import Deduplication
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.filtering import FilterSettings, FilterUnit
from cs336_data.pipeline.inputs import Unit
from cs336_data.pipeline.layout import Layout
from cs336_data.pipeline.markers import locked, read_json, read_marker, write_json
from cs336_data.pipeline.report import RunReport
from cs336_data.pipeline.summary import Summary, total

# Of the work files; a run in a folder of another format is refused.
_FORMAT = 1


@dataclass(frozen=True)
class Run:
    """What is to be done, and where.

    Attributes:
        units: the input files.
        layout: the run's folder.
        filtering: settings of the first stage.
        dedup: settings of deduplication.
        workers: processes at work at a time, for the report's projection.
        pages_per_wet: for the report's projection.
        redo: throw away what an earlier run with other settings has done, instead of refusing to mix with it.
    """

    units: Sequence[Unit]
    layout: Layout
    filtering: FilterSettings
    dedup: DedupSettings
    workers: int
    pages_per_wet: int
    redo: bool = False

    def execute(self, engine: Engine) -> RunReport:
        """Do what is missing and write the report. Whatever is complete already stays as it is.

        Raises:
            UsageError: the folder holds a run with other settings, or is in use; a filter or its options are unknown.
        """
        build_chain(self.filtering.filters)  # a wrong option is an error of the command, not of every file
        with locked(self.layout.lock):
            self.layout.remove_partial_files()
            self._check_configuration()
            summaries, failed = self._filter(engine)
            units = [unit for unit in self.units if unit.key in summaries]
            final = Deduplication(engine, self.layout, self.dedup, self.filtering).execute(units)
            report = self._report([*summaries.values()], final, failed)
            sections = report.sections()
            write_report(self.layout.report_html, "Filtering web pages", sections, f"{report.files} input files")
            write_json(self.layout.report_json, report.as_json())
            return report

    def _check_configuration(self) -> None:
        wanted = {"format": _FORMAT} | self.filtering.as_json()
        found = read_json(self.layout.configuration)
        if found is not None and found != wanted:
            if not self.redo:
                raise UsageError(
                    f"{self.layout.folder} holds a run with other settings ({_difference(found, wanted)}): "
                    "give another --out, or --redo to filter everything again"
                )
            self.layout.remove_results()
        write_json(self.layout.configuration, wanted)

    def _filter(self, engine: Engine) -> tuple[dict[str, Summary], dict[str, str]]:
        """The units' summaries by key, and the failed files by path."""
        done: dict[str, Summary] = {}
        missing = []
        for unit in self.units:
            summary = read_marker(self.layout.filter_marker(unit.key), unit.version)
            if summary is None:
                missing.append(unit)
            else:
                done[unit.key] = summary
        changed = sum(self.layout.filter_marker(unit.key).exists() for unit in missing)
        if done or changed:
            print(
                f"{len(done)} of {len(self.units)} files are done already, {changed} have changed since and are redone"
            )
        results = engine.run("filtering", FilterUnit(self.filtering, self.layout), missing)
        done |= results.done
        paths = {unit.key: unit.path for unit in missing}
        failed = dict(sorted((paths[key], reason) for key, reason in results.failed.items()))
        return {unit.key: done[unit.key] for unit in self.units if unit.key in done}, failed

    def _report(self, filtered: Sequence[Summary], final: Sequence[Summary], failed: Mapping[str, str]) -> RunReport:
        summary = total([*filtered, *final])
        # Deduplication's summaries say what left; what it kept is what is kept in the end.
        last = total(final)
        summary.kept, summary.characters_kept = last.kept, last.characters_kept
        summary.examples = [e for e in summary.examples if e.kind] + [e for e in last.examples if not e.kind]
        stages = [spec.name for spec in self.filtering.filters] + list(self.dedup.stages)
        settings: dict[str, Any] = self.filtering.as_json() | {"dedup": self.dedup.as_json()}
        return RunReport(summary, len(filtered), failed, stages, self.workers, self.pages_per_wet, settings)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first setting in which two configurations differ, as "name was X, now Y"."""
    for name in [*wanted, *found]:
        before, now = found.get(name), wanted.get(name)
        if before != now:
            if isinstance(before, dict) and isinstance(now, dict) and list(before) == list(now):
                return f"{name}: {_difference(before, now)}"
            return f"{name} was {before!r}, is now {now!r}"
    return "the order of the filters"
