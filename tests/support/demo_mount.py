"""The sample account under a real mount."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.counted_service import Service
from tests.support.mounts import Mount, StandIn


@dataclass
class Demo:
    """The sample account, mounted, and the same bytes in an ordinary directory."""

    mount: Mount
    stand_in: StandIn

    @property
    def point(self) -> Path:
        return self.mount.point

    @property
    def service(self) -> Service:
        return self.stand_in.service

    def one(self, pattern: str) -> Path:
        """Return the newest file whose name matches (the oldest ones are archived)."""
        return max(self.point.rglob(pattern), key=lambda path: (path.parent.name, path.name))
