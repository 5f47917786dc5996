"""A Common Voice release folder (train/dev/test.tsv and clips/) -> train, dev, test; transcripts as they stand."""

import csv
from pathlib import Path

from hfftools.data.audio import duration_s
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, progress


def sets(source: Path, out: Path, limit: int | None = None) -> dict[str, list[Utterance]]:
    """train, dev and test utterances of the language folder `source`."""
    return {part: _part(source, part, limit) for part in ("train", "dev", "test")}


def _part(source: Path, part: str, limit: int | None) -> list[Utterance]:
    tsv = source / f"{part}.tsv"
    if not tsv.exists():
        raise UserError(f"{tsv} is missing; --corpus takes the language folder, which holds the .tsv files and clips/")
    with open(tsv, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:limit]
    utterances = []
    for row in progress(rows, len(rows), f"Common Voice {part}"):
        speaker, name = row["client_id"][:16], row["path"]
        path = source / "clips" / name
        if not path.exists():
            raise UserError(f"{tsv}: {path} is missing")
        text = " ".join(row["sentence"].split())
        utt = f"{speaker}-{Path(name).stem}"
        utterances.append(Utterance(utt, speaker, str(path.resolve()), text, duration_s=duration_s(str(path))))
    return utterances
