"""Generate a small corpus: sentences with intents and slots from a grammar, spoken by eSpeak NG, with noise.

Nothing is downloaded, and everything follows from the seed. Train, dev and test have different voice variants, so that no
voice of the test set occurs in training.
"""

import random
from pathlib import Path

import numpy as np

from hfftools.audio.espeak import Espeak, Voice
from hfftools.audio.waveform import save
from hfftools.data import noise
from hfftools.data.datadir import Utterance
from hfftools.expdir import write_text
from hfftools.log import progress

SEED = 2211  # any number would do; another one makes another corpus
SIZES = {"train": 1000, "dev": 80, "test": 120}
GENERATED = tuple(SIZES)
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc", "en-029")
VARIANTS = {
    "train": (
        "Alex Alicia Andrea Andy Denis Diogo Gene Henrique Jacky Lee Marco Michael Mike adam anika announcer "
        "antonio belinda benjamin boris caleb david edward f1 f2 f3 m1 m2 m3 m4 m5 michel pablo paul quincy rob"
    ).split(),
    "dev": "f4 m6 linda max steph robert".split(),
    "test": "Annie f5 m7 m8 miguel pedro sandro travis victor zac".split(),
}
SLOTS = {
    "room": "kitchen|bedroom|bathroom|hallway|garage|living room|garden|office|basement|dining room".split("|"),
    "device": "lights|heating|fan|radio|television|oven|alarm|blinds|kettle|door lock".split("|"),
    "number": "one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty".split(),
    "unit": "seconds|minutes|hours".split("|"),
    "day": "monday tuesday wednesday thursday friday saturday sunday today tomorrow".split(),
    "city": "london|paris|berlin|madrid|dublin|vienna|new york|chicago|boston|toronto|sydney|oslo".split("|"),
    "name": "alice|robert|charlie|david|emma|frank|george|helen|james|laura|martin|sarah".split("|"),
    "genre": "jazz|rock music|classical music|folk songs|the news|a story|birdsong|opera".split("|"),
    "item": "milk|bread|apples|coffee|sugar|cheese|rice|potatoes|washing powder|orange juice|eggs|butter".split("|"),
}
GRAMMAR = {
    "switch_on": ["turn on the {device} in the {room}", "switch the {room} {device} on", "please start the {device}"],
    "switch_off": ["turn off the {device} in the {room}", "switch the {room} {device} off", "stop the {device} please"],
    "set_level": ["set the {device} in the {room} to {number}", "change the {room} {device} to level {number}"],
    "timer": ["set a timer for {number} {unit}", "wake me up in {number} {unit}", "remind me in {number} {unit}"],
    "weather": ["what is the weather in {city} on {day}", "will it rain in {city} {day}", "how cold is it in {city}"],
    "call": ["call {name}", "phone {name} on {day}", "send a message to {name}", "tell {name} to come home {day}"],
    "music": ["play {genre} in the {room}", "i want to hear {genre}", "play some {genre} for {number} {unit}"],
    "shopping": ["add {item} and {item} to the shopping list", "buy {number} {item}", "take {item} off the list"],
    "travel": ["book a train from {city} to {city} on {day}", "how far is it from {city} to {city}"],
}


def sentence(rng: random.Random) -> tuple[str, str, str]:
    """Return (text, intent, slots as `name=value` joined by `;`), drawn from the grammar."""
    intent = rng.choice(sorted(GRAMMAR))
    words, slots = [], []
    for piece in rng.choice(GRAMMAR[intent]).split():
        if piece.startswith("{"):
            name = piece.strip("{}")
            piece = rng.choice(SLOTS[name])
            slots.append(f"{name}={piece}")
        words.append(piece)
    return " ".join(words), intent, ";".join(slots)


def sets(source: Path | None, out: Path, limit: int | None = None) -> dict[str, list[Utterance]]:
    """Return train, dev and test, at most `limit` utterances each; write out/wav and, for each set, intent and slots."""
    espeak = Espeak()
    return {part: _part(espeak, part, min(size, limit or size), Path(out)) for part, size in SIZES.items()}


def _part(espeak: Espeak, part: str, size: int, out: Path) -> list[Utterance]:
    rng = random.Random(f"{SEED} {part}")
    folder = out / "wav" / part
    folder.mkdir(parents=True, exist_ok=True)
    utterances, intents, slots = [], {}, {}
    for index in progress(range(size), size, f"speaking {part}"):
        text, intent, slot = sentence(rng)
        variant = rng.choice(VARIANTS[part])
        voice = Voice(f"{rng.choice(ACCENTS)}+{variant}", pitch=rng.randint(25, 75), range=rng.randint(30, 70))
        samples = espeak.speak(text, voice, words_per_minute=rng.randint(140, 220))
        snr_db, noise_rng = rng.uniform(8, 30), np.random.default_rng(rng.getrandbits(32))
        samples = noise.mix(samples, noise.coloured(len(samples), noise_rng), snr_db)
        utt = f"{variant}-{part}-{index:05d}"
        path = folder / f"{utt}.wav"
        save(path, samples * rng.uniform(0.3, 0.9) / np.abs(samples).max(), espeak.rate_hz)
        intents[utt], slots[utt] = intent, slot
        duration_s = len(samples) / espeak.rate_hz
        utterances.append(Utterance(utt, variant, str(path.resolve()), text, duration_s=duration_s))
    for name, table in (("intent", intents), ("slots", slots)):
        write_text(out / part / name, "".join(f"{utt} {table[utt]}\n" for utt in sorted(table)))
    return utterances
