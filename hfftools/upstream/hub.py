"""Find the files of a repository on the Hugging Face Hub in huggingface_hub's own cache, which downloads what it lacks.

Cache, token, mirror and offline mode are those of every program that uses huggingface_hub: HF_HOME, HF_TOKEN, HF_ENDPOINT
and HF_HUB_OFFLINE.
"""

import re
from pathlib import Path
from typing import Any

from hfftools.disk import writing
from hfftools.log import UserError

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/name
NEEDED = "'*.json' 'model*.safetensors' 'pytorch_model*.bin'"  # what hff reads of a repository, for `hf download`
_COMMITS: dict[tuple[str, str], str] = (
    {}
)  # {(repository, revision): commit}: a process works with one, even if it moves


class NotFound(UserError):
    """The hub has no such revision, or the cache has no such file and the hub cannot be asked for it."""


class Repo:
    """The files of a repository at one commit. Those that are read first are downloaded; config.json at initialisation.

    `text` is the name of the upstream, for errors. Initialisation raises NotFound where there is no such revision, and
    UserError where there is no such repository, or its files may not be read, or config.json is not among them.
    """

    def __init__(self, repo_id: str, revision: str, text: str):
        self.id, self.text, self.revision = repo_id, text, revision or "main"
        self.unreached = ""  # why the hub cannot be asked, once that is known
        self.commit = _COMMITS.get((self.id, self.revision), "")
        if not self.commit:
            self.commit = _COMMITS[self.id, self.revision] = self.need("config.json").parent.name
        self.revision, self.name = self.commit, self.id.partition("/")[2]
        self.pinned = f"{self.id}@{self.commit}"
        self.folder = self.need("config.json").parent

    def get(self, name: str) -> Path | None:
        """Return the path of a file; None where the repository has none, or the cache if the hub cannot be asked."""
        from huggingface_hub import constants, errors, hf_hub_download

        path, known = self._cached(name) if self.commit or self.unreached else (None, False)
        if known or self.unreached:
            return path
        try:
            with writing(constants.HF_HUB_CACHE):
                return Path(hf_hub_download(self.id, name, revision=self.revision))
        except errors.LocalEntryNotFoundError as error:
            self.unreached = self._why(error.__cause__ or error)
            return None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:  # of the network, of whatever type: httpx, requests and hf_xet have their own
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk
            raise self._refusal(error) from None

    def kept(self, name: str) -> Path | None:
        """Return what `get` does without asking the hub; raise NotFound where only the hub can tell."""
        from huggingface_hub import constants

        path, known = self._cached(name)
        if not known and not self.unreached and not constants.HF_HUB_OFFLINE:
            raise NotFound(f"upstream {self.text}: {name} is not downloaded yet")
        return path

    def need(self, name: str) -> Path:
        """Return the path of a file; raise UserError, which says how to get it, where there is none."""
        path = self.get(name)
        if path is None:
            raise self.lacking(name)
        return path

    def names(self) -> list[str]:
        """Return the names of all files of the repository."""
        from huggingface_hub import HfApi, constants

        try:
            return HfApi(constants.ENDPOINT).list_repo_files(self.id, revision=self.revision)
        except Exception as error:  # of the network, of whatever type, as in `get`
            raise self._refusal(error) from None

    def lacking(self, what: str, also: str = "") -> UserError:
        """Return the error that says that the repository, or the cache if the hub cannot be asked, lacks something.

        `also` is a file that has to be downloaded besides those that every model has.
        """
        from huggingface_hub import constants

        if not self.unreached:
            return UserError(
                f"upstream {self.text}: {self._place} has no {what}; give a repository of a transformers model"
            )
        cache = constants.HF_HUB_CACHE
        patterns = f"{NEEDED} '{also}'" if also else NEEDED
        revision = "" if self.revision == "main" else f" --revision {self.revision}"
        return NotFound(
            f"upstream {self.text}: the cache {cache} has no {what} of {self.id}, and {self.unreached}; run `hf download "
            f"{self.id}{revision} {patterns}` on a machine with a network, and copy its folder "
            f"models--{self.id.replace('/', '--')} into {cache}"
        )

    @property
    def _place(self) -> str:
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self.id}"

    def _cached(self, name: str) -> tuple[Path | None, bool]:
        """Return the path of a file in the cache, and whether the cache knows that there is one or that there is none."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.id, name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None, found is not None

    def _why(self, error: BaseException) -> str:
        """Return why the hub cannot be asked; raise UserError where it was asked, and refuses."""
        from huggingface_hub import constants, errors

        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set"
        if isinstance(error, errors.HfHubHTTPError) and error.response is not None and error.response.status_code < 500:
            raise self._refusal(error) from None
        return f"{constants.ENDPOINT} cannot be reached ({_line(error)})"

    def _refusal(self, error: Exception) -> UserError:
        """Return the error in one line that says how to fix it."""
        from huggingface_hub import errors

        log_in = "log in with `hf auth login`, or set HF_TOKEN"
        if isinstance(error, errors.GatedRepoError):
            return UserError(
                f"upstream {self.text}: {self._place} is gated; accept its terms on that page, then {log_in}"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return UserError(
                f"upstream {self.text}: {self._place} does not exist, or is private, and no folder is called {self.id}; "
                f"correct the name, or {log_in}"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            what = "branch, tag or commit"
            return NotFound(f"upstream {self.text}: {self._place} has no {what} {self.revision}; give one that it has")
        status: Any = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return UserError(
                f"upstream {self.text}: {self._place} may not be read with this token ({status}); {log_in}"
            )
        return UserError(f"upstream {self.text}: {self._place} cannot be downloaded ({_line(error)}); try again")


def _line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
