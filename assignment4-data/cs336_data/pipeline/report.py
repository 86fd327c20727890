"""The report of a run: what was read, what each filter removed, examples, time by stage, what a crawl would take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cs336_basics.report import Section, Table, Text
from cs336_data.pipeline.filtering import EXTRACT
from cs336_data.pipeline.summary import Summary
from cs336_systems.result_table import ResultTable

WETS = (5_000, 100_000)
"""The handout's share of a crawl, and about a whole monthly crawl of Common Crawl."""
_STAGES_OF_READING = ("read", EXTRACT)
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class RunReport:
    """What a report is made of.

    Attributes:
        summary: everything added up.
        files: input files done.
        failed: input files that could not be done, each with one sentence.
        stages: filters and stages of deduplication, in the order in which documents met them.
        workers: processes at work at a time, for the projection.
        pages_per_wet: pages of one WET file, for the projection.
        settings: the configuration, for the record.
    """

    summary: Summary
    files: int
    failed: Mapping[str, str]
    stages: Sequence[str]
    workers: int
    pages_per_wet: int
    settings: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """All figures as an object of JSON."""
        return {
            "files": self.files,
            "failed": dict(self.failed),
            "stages": list(self.stages),
            "summary": self.summary.as_json(),
            "projected_hours": {str(wets): self.projected_hours(wets) for wets in WETS},
            "workers": self.workers,
            "pages_per_wet": self.pages_per_wet,
            "settings": dict(self.settings),
        }

    def projected_hours(self, wets: int) -> float | None:
        """Hours that so many WET files take on `workers` cores at this run's pace; None if no page was read.

        Extraction is left out, since WET files hold text.
        """
        if not self.summary.pages:
            return None
        seconds = sum(time for stage, time in self.summary.seconds.items() if stage != EXTRACT)
        return seconds / self.summary.pages * self.pages_per_wet * wets / self.workers / _SECONDS_PER_HOUR

    def tables(self) -> list[tuple[str, Table]]:
        """The tables with their titles, for HTML and for the terminal."""
        tables = [
            ("What was done", self._overview()),
            ("What each filter removed", self._removals()),
            ("Time by stage", self._times()),
            ("Projection", self._projection()),
        ]
        s = self.summary
        for title, header, counts in (
            ("Damaged records", "reason", s.bad),
            ("Records that are no pages", "reason", s.skipped),
            ("Languages", "language", s.languages),
            ("Masked", "what", s.masked),
        ):
            if counts:
                tables.append((title, Table([header, "number"], counts.most_common(12))))
        if self.failed:
            tables.append(("Files that failed", Table(["file", "why"], list(self.failed.items()))))
        return tables

    def sections(self) -> list[Section]:
        """The sections of the HTML report."""
        return [
            *(Section(title, [table]) for title, table in self.tables()),
            Section("Examples of kept documents", self._examples("")),
            *(
                Section(f"Examples of what {stage} removed", self._examples(stage))
                for stage in self._removing_stages()
                if self.summary.removed[stage]
            ),
            Section("Settings", [Text(_settings_text(self.settings), preformatted=True)]),
        ]

    def markdown(self) -> str:
        """The tables as Markdown."""
        return "\n\n".join(f"**{title}**\n\n{markdown_table(table)}" for title, table in self.tables())

    def _removing_stages(self) -> list[str]:
        return [EXTRACT, *self.stages]

    def _overview(self) -> Table:
        s = self.summary
        share = s.kept / s.pages if s.pages else None
        rows = [
            ["input files done", self.files],
            ["input files that failed", len(self.failed)],
            ["pages read", s.pages],
            ["documents kept", s.kept],
            ["share kept", _percent(share)],
            ["characters of text read", s.characters_read],
            ["characters of text kept", s.characters_kept],
            ["damaged records", s.bad.total()],
        ]
        return Table(["", "number"], rows)

    def _removals(self) -> Table:
        s, seen, rows = self.summary, self.summary.pages, []
        for stage in self._removing_stages():
            removed = s.removed[stage]
            rows.append(
                [stage, seen, removed, _percent(removed / seen if seen else None),
                 _percent(removed / s.pages if s.pages else None), s.edited[stage]]
            )  # fmt: skip
            seen -= removed
        header = ["filter", "documents seen", "removed", "share of seen", "share of all pages", "edited and passed on"]
        return Table(header, rows)

    def _times(self) -> Table:
        seconds, pages = self.summary.seconds, self.summary.pages
        whole = sum(seconds.values())
        order = [*_STAGES_OF_READING, *(stage for stage in self.stages if stage in seconds)]
        order += [stage for stage in seconds if stage not in order]
        rows = [[stage, seconds[stage], _percent(seconds[stage] / whole if whole else None)] for stage in order]
        rows.append(["all", whole, _percent(1.0 if whole else None)])
        rate = f"{pages / whole:,.0f} pages/s per core" if whole else "no pages"
        caption = f"Seconds of computing in all processes, waiting for disks not counted; {rate}."
        return Table(["stage", "CPU seconds", "share"], rows, caption)

    def _projection(self) -> Table:
        caption = (
            f"At this run's pace without extraction, {self.pages_per_wet:,} pages per WET file; "
            "waiting for disks and downloads not included."
        )
        rows = []
        for wets in WETS:
            hours = self.projected_hours(wets)
            days = None if hours is None else hours / 24
            rows.append([wets, self.workers, hours, days, None if hours is None else hours * self.workers])
        return Table(["WET files", "cores", "hours", "days", "core hours"], rows, caption)

    def _examples(self, kind: str) -> list[Table | Text]:
        examples = [example for example in self.summary.examples if example.kind == kind]
        if not examples:
            return [Text("There are none.")]
        if not kind:
            return [Table(["URL", "text"], [[e.url, e.text] for e in examples])]
        return [Table(["URL", "reason", "text"], [[e.url, e.reason, e.text] for e in examples])]


def markdown_table(table: Table) -> str:
    """The table as Markdown."""
    rows = [[cell.replace("|", "\\|") if isinstance(cell, str) else cell for cell in row] for row in table.rows]
    text = ResultTable(table.header, rows).markdown()
    return f"{text}\n\n{table.caption}" if table.caption else text


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _settings_text(settings: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(settings), allow_unicode=True, sort_keys=False)
