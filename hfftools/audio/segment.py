"""Cut a recording, given as blocks of samples, at its silences into pieces [N] of limited duration.

Silence is detected by energy alone, relative to the quietest and the loudest frames of the current stretch, so that neither
gain nor steady noise matters. Little more than one piece is in memory, however long the recording is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hfftools.audio.waveform import RATE_HZ

FRAME_SAMPLES = 160  # 10 ms
SMOOTH_FRAMES = 5
SILENT_DB = -70.0  # relative to full scale; a recording that is never louder has no speech
# the quietest level counts as at most this far below the loudest: digital zeros would hide the noise of the room
RANGE_DB = 50.0
# silence reaches this share of the range, and at least so many dB, above the quietest level
QUIET_SHARE, QUIET_DB = 0.25, 4.0
MEMORY_DB = 25.0  # a stretch has speech only if its loudest frame is within this of the loudest frame before it
SHORT_PAUSE_S = 0.1  # shortest pause at which a piece that grows too long is cut
MARGIN_S = 0.3  # silence that is kept on either side of a piece


@dataclass(frozen=True)
class Piece:
    """Hold a stretch of a recording that has speech in it."""

    start_s: float
    wav_N: np.ndarray  # float32, 16 kHz

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.wav_N) / RATE_HZ


def cut(blocks: Iterable[np.ndarray], max_s: float, pause_s: float) -> Iterator[Piece]:
    """Yield the pieces of a recording, given as blocks [N] at 16 kHz: one from each pause of `pause_s` to the next.

    A piece that would be longer than `max_s` is cut at the longest of its shorter pauses, or where it is quietest. Silence
    is left out; a recording without sound has no pieces.
    """
    # in whole frames, so that every stretch begins at a frame of the recording
    longest = max(FRAME_SAMPLES, round(max_s * RATE_HZ) // FRAME_SAMPLES * FRAME_SAMPLES)
    pending_N, begin = np.zeros(0, np.float32), 0  # samples to be cut, and how many came before them
    loudest_db = SILENT_DB
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
    """Yield the blocks, then None."""
    yield from blocks
    yield None


def _frames(seconds: float) -> int:
    """Return a duration in frames, at least one."""
    return max(1, round(seconds * RATE_HZ / FRAME_SAMPLES))


def _level_db(wav_N: np.ndarray) -> np.ndarray:
    """Return the level [T] of each frame in dB of full scale, without its mean (an offset), smoothed over a few frames."""
    wav_TN = np.pad(wav_N, (0, -len(wav_N) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
    # at the edges the level of the outermost frame is repeated; zeros would look like silence
    power_T = np.pad(wav_TN.var(axis=1), SMOOTH_FRAMES // 2, mode="edge")
    return 10 * np.log10(
        np.convolve(power_T, np.full(SMOOTH_FRAMES, 1 / SMOOTH_FRAMES), "valid") + 1e-12
    )  # -120 dB for zeros


def _threshold_db(level_T: np.ndarray, loudest_db: float) -> float:
    """Return the level below which a frame is silent; if all frames are as loud as the loudest so far, none is silent."""
    highest_db = float(level_T.max())
    peak_db = max(highest_db, loudest_db - MEMORY_DB)  # a stretch of noise alone is measured by earlier speech
    # the 5th percentile stands for the quietest level: the minimum would depend on a single frame
    floor_db = max(float(np.percentile(level_T, 5)), peak_db - RANGE_DB)
    threshold_db = floor_db + max(QUIET_SHARE * (peak_db - floor_db), QUIET_DB)
    if peak_db == highest_db:  # a stretch of steady speech has hardly any range; its loudest frames are no silence
        threshold_db = min(threshold_db, highest_db - 2 * QUIET_DB)
    return max(SILENT_DB, threshold_db)


def _next(quiet_T: np.ndarray, level_T: np.ndarray, pause_s: float, last: bool) -> tuple[int, int, int]:
    """Return, in frames, the start and end of the next piece (0, 0: none), and how much of the stretch is finished."""
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
        return 0, 0, start  # drop the silence before it, which makes room for more speech
    short = [(b, e) for b, e in pauses if e - b >= _frames(SHORT_PAUSE_S) and b >= frames // 3]
    if short:
        begin, end = max(short, key=lambda pause: pause[1] - pause[0])
        at = (begin + end) // 2
    else:
        at = frames // 2 + int(level_T[frames // 2 :].argmin())
    return 0, max(1, at), max(1, at)


def _runs(true_T: np.ndarray) -> list[tuple[int, int]]:
    """Return [begin, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true_T, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
