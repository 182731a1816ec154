"""``eval_all.py --force [TIME]``: which results are computed again, and how a repetition that was stopped goes on."""

from __future__ import annotations

import datetime
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from clearclip.evaluation.journal import latest_start
from clearclip.results.record import Record
from clearclip.results.records import read_records
from clearclip.utils.errors import UserError


@dataclass(frozen=True)
class Repetition:
    """Which results count as such, and which journals are gone on with.

    Attributes:
        since: results and journals of earlier runs do not count; None where all of them do, as without ``--force``.
        is_continued: it began in an earlier command, whose results count.
    """

    since: datetime.datetime | None = None
    is_continued: bool = False

    @property
    def command_to_continue(self) -> str:
        """What the user has to type after an interruption, in words."""
        if self.since is None:
            return "the same command"
        return f"the same command with --force {self.since.isoformat()}"

    def records_that_count(self, results: str | Path) -> list[Record]:
        """The records beside a workbook because of which a row is not computed."""
        if self.since is None:
            return read_records(results)[0]
        # A new repetition has no result yet. Records know their second only, so that time alone could not tell.
        if not self.is_continued:
            return []
        return [record for record in read_records(results)[0] if record.moment >= self.since]

    def resume_option(self, work_dir: Path) -> str:
        """How a run with this work dir treats the journals there: "auto" goes on with them, "no" starts again."""
        if self.since is None:
            return "auto"
        started = latest_start(work_dir / "journal")
        return "auto" if self.is_continued and started is not None and started >= self.since else "no"


#: What has a result is not computed again.
NO_REPETITION = Repetition()


def repetition_of(args: Namespace) -> Repetition:
    """What ``--force`` means: nothing without it, all of it from now on, or from the time that is given.

    Raises:
        UserError: the time cannot be read.
    """
    if args.force is None:
        return NO_REPETITION
    if not args.force:
        # Records have whole seconds, and those of this command must not seem to be older than it.
        return Repetition(datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0))
    try:
        since = datetime.datetime.fromisoformat(args.force)
    except ValueError as error:
        raise UserError(
            f"--force {args.force!r} is no time; give it as the interrupted command named it, 2026-01-31T12:00:00+00:00"
        ) from error
    if since.tzinfo is None:
        since = since.astimezone()
    return Repetition(since, is_continued=True)
