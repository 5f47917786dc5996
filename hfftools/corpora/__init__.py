"""One module a corpus: `sets(source, out, limit)` gives {set name: utterances} from the corpus in its own layout.

A module may also have `Config`, the dataclass of its own options, which is then the last argument of all its functions;
`archives()`, {URL: checksum} of what is downloaded where no source is given, each unpacked to a folder of its own below
what then is the source, and `WITHOUT_SOURCE`, options that then hold unless others are given; `unpack(archive, folder,
limit)`, the folder to read where the source is a file; and `WHERE`, which says where to get what has no download.
"""

# Modules of this folder that corpora share; every other module is a corpus.
NOT_PLUGINS = ("download", "prepare", "subset", "unpacking")
