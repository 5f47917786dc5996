"""Nothing moves inside the upstream: an upstream in, the same upstream out."""

from dataclasses import dataclass

from hfftools.upstream.base import Upstream


@dataclass
class Config:
    name: str = "frozen"


def places(config: Config) -> list[str]:
    return []


def apply(upstream: Upstream, config: Config) -> None:
    """Leave everything frozen."""
