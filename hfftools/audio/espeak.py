"""Convert text to speech or phones: the one door to eSpeak NG; library and voices come with the espeakng-loader wheel."""

import ctypes
import functools
import re
from dataclasses import dataclass

import espeakng_loader
import numpy as np

from hfftools.log import UserError

_RETRIEVAL, _CHARS_UTF8, _POSITION_CHARACTER = 1, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_IPA, _SEPARATOR = 0x02, "_"  # of espeak_TextToPhonemes: names in IPA, and in bits 8 to 23 what stands between two
_MARKS = re.compile(r"[ˈˌ]|\(.*?\)")  # stress, and where a word is read as another language's: (en)…(de)
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """Describe a speaker: an eSpeak NG voice with its variant (`en-us+f2`), its pitch and pitch range, 0 to 99."""

    name: str
    pitch: int = 50
    range: int = 50


@functools.cache  # the library holds one state a process
class Espeak:
    """Synthesise speech. In a new process, the same calls in the same order give the same samples."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self._lib.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
            ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        self._lib.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        data = espeakng_loader.get_data_path().encode()
        self.rate_hz: int = self._lib.espeak_Initialize(_RETRIEVAL, 0, data, 0)
        if self.rate_hz <= 0:
            raise RuntimeError(f"eSpeak NG did not start from {data.decode()}")
        self._lib.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._receive)  # kept here, or it would be collected while C still calls it
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, _events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, text: str, voice: Voice, words_per_minute: int = 170) -> np.ndarray:
        """Return speech as float32 [N] in [-1, 1] at `rate_hz`; raise ValueError if eSpeak NG does not have the voice."""
        if self._lib.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice.name}")
        for parameter, value in ((_RATE, words_per_minute), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._lib.espeak_ng_SetRandSeed(1)  # breath and flutter are noise, else seeded by the clock
        self._chunks = []
        raw = text.encode()
        self._lib.espeak_Synth(raw, len(raw) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        self._lib.espeak_Synchronize()
        return np.concatenate(self._chunks).astype(np.float32) / 32768.0

    def phonemes(self, word: str, voice: str = "en-us") -> list[str]:
        """Return the phones of a text in IPA; a length mark or a tone belongs to its phone, stress is left out.

        Text without sound, such as punctuation, has no phones. Raise UserError if eSpeak NG does not have the voice.
        """
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"eSpeak NG has no voice '{voice}'; it has en-us, en, ar, cmn, de, es, fr, hi, ru and more")
        rest, spoken = ctypes.c_char_p(word.encode()), []
        while rest.value:  # a call reads one clause and moves on; at the end of the text it leaves NULL
            raw = self._lib.espeak_TextToPhonemes(ctypes.byref(rest), _CHARS_UTF8, _IPA | ord(_SEPARATOR) << 8)
            spoken += re.split(f"[{_SEPARATOR} ]", _MARKS.sub(" ", raw.decode()))
        return [phone for phone in spoken if phone]
