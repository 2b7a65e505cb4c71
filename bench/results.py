"""Results as JSON: every sample, and a stamp of where and with what it was made.

Knows the file's format; writes and reads it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from convjit import environment

from .measure import Outcome, Row
from .problems import Problem
from .process import CHECKOUT
from .ratios import flops

ROW_FIELDS = {field.name for field in fields(Row)}


def git_state() -> dict[str, Any]:
    """The commit of the checkout and whether files differ from it; None where there is no git."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", *command], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=30
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes)}


def stamp(program: str, arguments: list[str], versions: dict[str, str]) -> dict[str, Any]:
    """Where and with what the numbers were made."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", program, *arguments]),
        "git": git_state(),
        "machine": {
            "cpu": environment.cpu_name(),
            "instruction set": environment.instruction_set(),
            "cores": environment.usable_cores(),
        },
        "versions": environment.versions() | versions,
        "python executable": Path(sys.executable).name,
    }


def write_json(folder: Path, outcome: Outcome, arguments: list[str], options: dict[str, Any]) -> Path:
    """Write everything that was measured."""
    content = {
        "stamp": stamp("bench", arguments, outcome.versions),
        "options": options,
        "fma peak": [
            {"dtype": dtype, "threads": threads, "flops": value} for (dtype, threads), value in outcome.peaks.items()
        ],
        "rows": [_as_json(row, outcome) for row in outcome.rows],
        "troubles": outcome.troubles,
    }
    return save(folder, "bench", content)


def _as_json(row: Row, outcome: Outcome) -> dict[str, Any]:
    rate = flops(row)
    return {
        **asdict(row),
        "problem": row.problem._asdict(),
        "median_seconds": row.median,
        "flops": rate,
        "share_of_peak": outcome.share_of_peak(row.dtype, row.threads, rate),
    }


def save(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Write a stamped result as JSON; the date of its stamp is part of the file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{content['stamp']['date'][:19].replace(':', '')}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def read_json(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The stamp and the rows of a result; a `ValueError` says that a file is none."""
    try:
        content = json.loads(path.read_text())
        rows = [_from_json(row) for row in content["rows"]]
        return content["stamp"], rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a result of `python -m bench`: {error}") from None


def _from_json(row: dict[str, Any]) -> Row:
    known = {name: value for name, value in row.items() if name in ROW_FIELDS}
    return Row(**{**known, "problem": Problem(**row["problem"])})
