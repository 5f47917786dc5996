"""The samples of a recording in blocks in, pieces [N] of at most so many seconds cut at its silences out.

Speech is told from silence by energy alone, against the quietest and the loudest of the stretch at hand, so that neither
gain nor a steady noise matters. Whatever the length of the recording, little more than one piece of it is in memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hfftools.audio.waveform import RATE_HZ

FRAME_SAMPLES = 160  # 10 ms
SMOOTH_FRAMES = 5
SILENT_DB = -70.0  # below full scale: a recording that never gets louder holds nothing
RANGE_DB = 50.0  # silence counts as no further below the loudest: digital zeros would hide the room's noise
QUIET_SHARE, QUIET_DB = 0.25, 4.0  # how far above the quietest silence reaches, in parts of the range, and at least
MEMORY_DB = 25.0  # a stretch is loud only if it comes within this of the loudest before it
SHORT_PAUSE_S = 0.1  # the shortest in which a piece that grows too long is cut
MARGIN_S = 0.3  # of silence left on either side of a piece


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording with speech in it."""

    start_s: float
    wav_N: np.ndarray  # float32, 16 kHz

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.wav_N) / RATE_HZ


def cut(blocks: Iterable[np.ndarray], max_s: float, pause_s: float) -> Iterator[Piece]:
    """Pieces of a recording given as blocks [N] at 16 kHz, in their order: one from each pause of `pause_s` to the next.

    What would be longer than `max_s` is cut in the longest of its shorter pauses, or where it is quietest. Silence is left
    out; nothing comes of a recording without sound.
    """
    longest = max(FRAME_SAMPLES, round(max_s * RATE_HZ) // FRAME_SAMPLES * FRAME_SAMPLES)
    pending_N, begin, loudest_db = np.zeros(0, np.float32), 0, SILENT_DB  # `begin`: samples before the pending ones
    for block_N in _ended(blocks):
        if block_N is not None:
            pending_N = np.concatenate([pending_N, block_N])
        while len(pending_N) >= longest or (block_N is None and len(pending_N)):
            window_N = pending_N[:longest]
            level_T = _level_db(window_N)
            loudest_db = max(loudest_db, float(level_T.max()))
            quiet_T = level_T < _threshold_db(level_T, loudest_db)
            last = block_N is None and len(pending_N) <= longest
            start, end, used = (n * FRAME_SAMPLES for n in _next(quiet_T, level_T, pause_s, last))
            if end > start:
                yield Piece((begin + start) / RATE_HZ, window_N[start:end].copy())
            pending_N, begin = pending_N[used:], begin + used


def _ended(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray | None]:
    yield from blocks
    yield None


def _frames(seconds: float) -> int:
    return max(1, round(seconds * RATE_HZ / FRAME_SAMPLES))


def _level_db(wav_N: np.ndarray) -> np.ndarray:
    """Energy of each frame [T] in dB of full scale, its mean taken out (it may be an offset), over a few frames."""
    wav_TN = np.pad(wav_N, (0, -len(wav_N) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
    power_T = np.pad(wav_TN.var(axis=1), SMOOTH_FRAMES // 2, mode="edge")
    return 10 * np.log10(np.convolve(power_T, np.full(SMOOTH_FRAMES, 1 / SMOOTH_FRAMES), "valid") + 1e-12)


def _threshold_db(level_T: np.ndarray, loudest_db: float) -> float:
    """Below this a frame is silent. Where all frames are about as loud as the loudest before, none of them is."""
    highest_db = float(level_T.max())
    peak_db = max(highest_db, loudest_db - MEMORY_DB)
    floor_db = max(float(np.percentile(level_T, 5)), peak_db - RANGE_DB)
    threshold_db = floor_db + max(QUIET_SHARE * (peak_db - floor_db), QUIET_DB)
    if peak_db == highest_db:
        threshold_db = min(threshold_db, highest_db - 2 * QUIET_DB)
    return max(SILENT_DB, threshold_db)


def _next(quiet_T: np.ndarray, level_T: np.ndarray, pause_s: float, last: bool) -> tuple[int, int, int]:
    """In frames: where the next piece starts and ends, and how much of the stretch is then done with; no piece is 0, 0."""
    margin, frames = _frames(MARGIN_S), len(quiet_T)
    loud = np.flatnonzero(~quiet_T)
    if len(loud) == 0:
        return 0, 0, frames if last else max(1, frames - margin)
    start = max(0, int(loud[0]) - margin)
    pauses = [(b, e) for b, e in _runs(quiet_T) if b > loud[0]]
    for begin, end in pauses:
        if end - begin >= _frames(pause_s):
            middle = (begin + end) // 2
            return start, min(begin + margin, middle), max(middle, end - margin)
    if last:
        return start, min(frames, int(loud[-1]) + 1 + margin), frames
    if start > 0:
        return 0, 0, start  # the silence before it is done with, and there is room for more
    short = [(b, e) for b, e in pauses if e - b >= _frames(SHORT_PAUSE_S) and b >= frames // 3]
    if short:
        begin, end = max(short, key=lambda pause: pause[1] - pause[0])
        at = (begin + end) // 2
    else:
        at = frames // 2 + int(level_T[frames // 2 :].argmin())
    return 0, max(1, at), max(1, at)


def _runs(true_T: np.ndarray) -> list[tuple[int, int]]:
    """[begin, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true_T, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
