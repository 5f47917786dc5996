"""Learn units from transcripts (characters, BPE or unigram pieces), convert text to ids and back; the door to sentencepiece.

Id 0 is the blank of CTC and id 1 an unknown character. Text is words separated by single spaces, and every character of
the training text comes back as it was, whatever its script: nothing is normalised. A folder of units holds units.txt
(`symbol id` a line, for people and other tools), units.json (what is read back) and, for pieces, sentencepiece.model.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path

import sentencepiece

from hfftools.disk import alone
from hfftools.expdir import write_aside, write_json, write_text
from hfftools.log import UserError, log, require
from hfftools.records import read_json

KINDS = ("char", "bpe", "unigram")
DEFAULT_SIZE = 500  # units of bpe and unigram, unless asked otherwise
BLANK, UNKNOWN = 0, 1
UNKNOWN_TEXT = "\u2047"  # what an unknown unit reads as: one character, so that it costs one error and not five

_SPACE = "\u2581"  # what sentencepiece writes for a space
_NEVER = "\u2585"  # a character that no model knows: sentencepiece keeps it for itself
_UNKNOWN_PIECE = "\uf8ff"  # by default `<unk>`, which a transcript may hold as a word
_LINE_CHARS = 1000


class _Escape(dict):
    """Translate, in str.translate, every character that the table lacks to one that no model knows."""

    def __missing__(self, code: int) -> str:
        return _NEVER


class Units:
    """Hold an inventory of units. `symbols[id]` is a unit's readable name, free of white space and no other unit's."""

    def __init__(self, kind: str, pieces: list[str], escapes: dict[str, str], model: bytes, made_from: dict):
        """Build the units: `pieces` is the text of each id from 2 on, `escapes` {character: its stand-in in the model}."""
        self.kind, self.made_from = kind, made_from
        self._pieces = ["", UNKNOWN_TEXT, *pieces]
        self.symbols = ["<blank>", "<unk>", *(_symbol(piece, kind) for piece in pieces)]
        self._ids = {piece: id for id, piece in enumerate(self._pieces) if id > UNKNOWN}
        self._known = set("".join(pieces))
        self._escapes, self._model = escapes, model
        self._escape = _Escape({ord(c): escapes.get(c, c) for c in self._known} | {ord(" "): " "})
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model) if model else None

    def __len__(self) -> int:
        """Return the number of units, including blank and unknown."""
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; UNKNOWN for a character, or with pieces a run of them, that the units do not cover."""
        text = _single_spaced(text)
        if self._processor is None:
            return [self._ids.get(character, UNKNOWN) for character in text]
        # our ids are sentencepiece's plus one, because it has no blank; its unknown piece, 0, becomes UNKNOWN
        return [id + 1 for id in self._processor.encode(text.translate(self._escape))]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of any sequence of ids, its words separated by single spaces; blanks have no text."""
        return _single_spaced("".join(self._pieces[id] for id in ids))

    def starts_word(self, id: int) -> bool:
        """Return whether a unit is, or begins with, the space that separates words."""
        return self._pieces[id].startswith(" ")

    def is_space(self, id: int) -> bool:
        """Return whether a unit is nothing but that space."""
        return self._pieces[id] == " "

    @property
    def pieces(self) -> list[str]:
        """Return the text of each id; concatenated, and single-spaced, the texts are what `decode` returns."""
        return list(self._pieces)

    @property
    def digest(self) -> str:
        """Return 16 hex digits that identify these units."""
        return sha256(self._listing().encode() + self._model).hexdigest()[:16]

    def unknown(self, text: str) -> list[str]:
        """Return the characters of `text` that the units do not cover, each once, in order of appearance."""
        return [character for character in dict.fromkeys(_single_spaced(text)) if character not in self._known]

    def save(self, folder: Path | str) -> None:
        """Write a folder that `load` reads; a kill in between leaves one that `load` refuses."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "units.json").exists():
            write_json(folder / "units.json", {})  # first, since files without it are not ours
        if self._model:
            with write_aside(folder / "sentencepiece.model") as aside:
                aside.write_bytes(self._model)
        write_text(folder / "units.txt", self._listing())
        stored = {"kind": self.kind, "pieces": self._pieces[2:], "escapes": self._escapes, "made_from": self.made_from}
        write_json(folder / "units.json", stored | {"model_sha256": sha256(self._model).hexdigest()})

    def _listing(self) -> str:
        return "".join(f"{symbol} {id}\n" for id, symbol in enumerate(self.symbols))


def _single_spaced(text: str) -> str:
    return " ".join(word for word in text.split(" ") if word)


def _symbol(piece: str, kind: str) -> str:
    """Return a readable name, in which a character that cannot be seen is spelled <U+200D>.

    No piece looks like that by itself: sentencepiece never joins marks, letters and digits.
    """
    if piece == " ":
        return "<space>" if kind == "char" else _SPACE
    name = ""
    for c in piece:
        hidden = not c.isprintable() or c.isspace() or c == _SPACE
        name += _SPACE if c == " " else f"<U+{ord(c):04X}>" if hidden else c
    return name


def load(folder: Path | str) -> Units:
    """Return the units of a folder; raise UserError if a file is missing or was changed."""
    folder = Path(folder)
    fix = "make the folder again with hff-units (stage 1 of a recipe)"
    try:
        form = {"kind": str, "pieces": [str], "escapes": dict, "made_from": dict, "model_sha256": str}
        stored = read_json(folder / "units.json", form, fix)
        with_model = stored["kind"] != "char"
        model = (folder / "sentencepiece.model").read_bytes() if with_model else b""
        listing = (folder / "units.txt").read_text(encoding="utf-8")
        if sha256(model).hexdigest() != stored.pop("model_sha256"):
            raise UserError(f"{folder}/sentencepiece.model is not the one that units.json was written with; {fix}")
        units = Units(model=model, **stored)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); {fix}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder}/units.json is damaged ({' '.join(str(error).split())}); {fix}") from None
    if listing != units._listing():
        raise UserError(f"{folder}/units.txt is not the list of these units, and editing it changes nothing; {fix}")
    return units


def make(kind: str, texts: Iterable[str], size: int | None, folder: Path | str) -> Units:
    """Return the units in `folder` if they were made from the same arguments and text; otherwise `train` them."""
    folder, texts = Path(folder), list(texts)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; units need a folder")
    require(size is None or size > 0, f"size {size} is not above 0; it is the number of units")
    with alone(folder, waits=True):
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            known = (folder / "units.json").exists()
            require(known, f"{folder} holds files that hff-units did not write; name another folder for the units")
            try:
                units = load(folder)
                if units.made_from == _made_from(kind, texts, size):
                    log.info(f"{folder} is there already, made from the same text")
                    return units
                log.info(f"{folder} was made from other text or other options; making it again")
            except UserError as error:
                log.info(f"{error}: making it again")
        return train(kind, texts, size, folder)


def train(kind: str, texts: Iterable[str], size: int | None, out_dir: Path | str) -> Units:
    """Learn units from `texts` and save them to `out_dir`; the same texts in the same order give the same units.

    `size` counts all units, blank and unknown included; it is raised where there are more characters, and the units are
    fewer where the text is too small for so many. Characters are as many as the text has, whatever the size.
    """
    texts = list(texts)
    if kind not in KINDS:
        raise UserError(f"kind of units: '{kind}' is not one of {', '.join(KINDS)}")
    characters = sorted(set("".join(texts)) - {" "})
    if not characters:
        raise UserError("there is no text to learn units from: every transcript is empty")
    made_from = _made_from(kind, texts, size)
    if kind == "char":
        if size is not None:
            log.info(f"char: size {size} has no effect, there are {len(characters)} characters")
        units = Units(kind, [" ", *characters], {}, b"", made_from)
    else:
        units = _train_pieces(kind, texts, characters, DEFAULT_SIZE if size is None else size, made_from)
    units.save(out_dir)
    return units


def _made_from(kind: str, texts: Sequence[str], size: int | None) -> dict:
    """Return what identifies the arguments of `make`; the size has no effect on characters, so it is left out there."""
    digest = sha256()
    for text in texts:
        digest.update(text.encode() + b"\n")
    return {"kind": kind, "size": None if kind == "char" else size, "text_sha256": digest.hexdigest()}


def _train_pieces(kind: str, texts: list[str], characters: list[str], size: int, made_from: dict) -> Units:
    smallest = len(characters) + 3  # blank, unknown, space
    if size < smallest:
        log.info(f"{kind}: size {size} raised to {smallest}: {len(characters)} characters, space, unknown and blank")
    escapes = _escapes(characters)
    escape, unescape = str.maketrans(escapes), str.maketrans({v: k for k, v in escapes.items()} | {_SPACE: " "})
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=chain.from_iterable(_lines(text.translate(escape)) for text in texts),
            model_writer=model,
            model_type=kind,
            vocab_size=max(size, smallest) - 1,  # sentencepiece knows no blank
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            character_coverage=1.0,
            byte_fallback=False,
            max_sentence_length=16 * _LINE_CHARS,
            unk_id=0,
            unk_piece=_UNKNOWN_PIECE,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=4,  # part of the result: sums over threads round differently for another number
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:  # ValueError: a size beyond 2^31
        raise UserError(f"sentencepiece cannot learn {kind} units: {' '.join(str(error).split())}") from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(id).translate(unescape) for id in range(1, len(processor))]
    if len(pieces) + 2 < size:
        log.info(f"{kind}: {len(pieces) + 2} units, not {size}: the text has no more to offer")
    return Units(kind, pieces, escapes, model.getvalue(), made_from)


def _escapes(characters: Iterable[str]) -> dict[str, str]:
    """Return stand-ins, from Unicode's private planes, for characters that sentencepiece drops or uses itself."""
    present = set(characters)
    odd = [c for c in characters if c in (_SPACE, _NEVER, _UNKNOWN_PIECE) or ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0]
    free = (chr(code) for code in range(0xF0000, 0x10FFFE) if chr(code) not in present)
    return dict(zip(odd, free, strict=False))


def _lines(text: str) -> Iterator[str]:
    """Yield the words of a text in lines of at most _LINE_CHARS characters: sentencepiece leaves out lines that are long."""
    line = ""
    for word in text.split(" "):
        for start in range(0, len(word), _LINE_CHARS):
            part = word[start : start + _LINE_CHARS]
            if line and len(line) + 1 + len(part) > _LINE_CHARS:
                yield line
                line = part
            else:
                line = f"{line} {part}" if line else part
    if line:
        yield line
