"""A data directory in, one with copies at several speeds out, as Kaldi's perturb_data_dir_speed does (Ko et al. 2015).

Pitch and tempo change together. Copies are speakers of their own: `sp0.9-<speaker>`; speed 1 keeps its audio and its names.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
import torchaudio

from hfftools.data import audio, datadir
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, log, progress


def speed(source: Path, out: Path, speeds: list[float]) -> int:
    """Write `out` with every utterance of `source` at each of `speeds`; how many. Newer copies are kept.

    UserError for a speed outside 0.5 to 2.
    """
    wrong = [s for s in speeds if not 0.5 <= s <= 2]
    if wrong or not speeds:
        raise UserError(f"--speeds: {wrong[0] if wrong else 'none given'}; speeds lie between 0.5 and 2")
    if out.resolve() == source.resolve():
        raise UserError(f"{out}: copies would overwrite the set they are made from; name another folder")
    jobs = [(utt, factor) for utt in datadir.read(source) for factor in sorted(set(speeds))]
    with ThreadPoolExecutor(2) as pool:
        copies = pool.map(lambda job: job[0] if job[1] == 1 else _copy(*job, out / "wav"), jobs)
        utterances = list(progress(copies, len(jobs), f"speeds of {source.name}"))
    datadir.write(out, utterances)
    log.info(f"{out}: {len(utterances)} utterances at speeds {speeds}")
    return len(utterances)


def _copy(utt: Utterance, factor: float, folder: Path) -> Utterance:
    prefix = f"sp{factor:g}-"
    path = folder / f"{prefix}{utt.id}.flac"
    original = Path(utt.source)
    if not (path.exists() and original.is_file() and path.stat().st_mtime > original.stat().st_mtime):
        samples = torch.from_numpy(audio.load(utt.source, utt.start_s, utt.end_s))
        audio.save(path, torchaudio.functional.resample(samples, round(1000 * factor), 1000).numpy())
    source, seconds = str(path.resolve()), audio.duration_s(str(path))
    return replace(
        utt,
        id=prefix + utt.id,
        speaker=prefix + utt.speaker,
        source=source,
        start_s=0.0,
        end_s=None,
        duration_s=seconds,
    )
