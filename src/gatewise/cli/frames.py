"""Tables that are given out: as a file, as JSON, or printed."""

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gatewise.cli.words import Predict
from gatewise.errors import ArgumentError
from gatewise.whole import write_whole

if TYPE_CHECKING:
    import polars as pl


def check_out(path: Path | None, *others: Path | None) -> None:
    """Refuse a name that says neither CSV nor Parquet, or one in no folder, before anything is computed or written.

    Raises
    ------
    ArgumentError
        It ends otherwise; or the folder of one of the files is not there.
    """
    for file in (path, *others):
        if file is not None and not file.parent.is_dir():
            raise ArgumentError(f"{file} is to be written, and there is no folder {file.parent}: make it first")
    if path is not None and path.suffix.lower() not in (".csv", ".parquet"):
        raise ArgumentError(f"out is {path}, needed is a name that ends in .csv or .parquet: change it")


def give(command: Predict, frame: "pl.DataFrame", name: str) -> None:
    """Write a table where the command says, or print it as CSV; with --json as one object with the name."""
    if command.out is not None:
        write_whole(command.out, _as_bytes(frame, command.out.suffix.lower()))
    if command.json:
        print(json.dumps({name: json.loads(frame.write_json())}))
    elif command.out is None:
        print(_as_bytes(frame, ".csv").decode(), end="")
    for path in (command.out, command.figure):
        if path is not None:
            print(f"wrote {path}", file=sys.stderr)


def _as_bytes(frame: "pl.DataFrame", ending: str) -> bytes:
    written = io.BytesIO()
    if ending == ".parquet":
        frame.write_parquet(written)
    else:
        zoned = any(getattr(kind, "time_zone", None) for kind in frame.dtypes)
        frame.write_csv(written, datetime_format="%Y-%m-%d %H:%M:%S" + "%:z" * zoned)
    return written.getvalue()
