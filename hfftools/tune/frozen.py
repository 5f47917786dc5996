"""Keep the whole upstream frozen."""

from dataclasses import dataclass

from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "frozen"


def places(config: Config) -> list[str]:
    return []


def apply(upstream: Upstream, config: Config) -> None:
    """Leave everything frozen."""
