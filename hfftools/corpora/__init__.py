"""Hold one module for each corpus; CONTRIBUTING.md, "Adding a corpus", walks through one.

A module has `sets(source, out, limit)`, which returns {set name: utterances} of the corpus in its own layout; the sets are
written to `out`, which matters only to a corpus that stores audio there. A module may also have:

- `Config`, the dataclass of its own options; an instance is then the last argument of all its functions;
- `archives()`, which returns {URL: checksum} of what is downloaded if no source is given; each archive is unpacked to a
  folder of its own in what then is the source; and `WITHOUT_SOURCE`, options that apply in this case;
- `unpack(archive, folder, limit)`, which returns the folder to read if the source is a file;
- `WHERE`, a sentence that says where to get a corpus that cannot be downloaded;
- `GENERATED`, the names of the sets, if the corpus needs no source at all.
"""

# Modules of this folder that corpora share; every other module is a corpus.
NOT_PLUGINS = ("download", "prepare", "subset", "unpacking")
