"""What SkyPilot has to know of a place where GPUs are, and the target that stands for it."""

from __future__ import annotations

from dataclasses import dataclass

from melete.agents.compute.target import Target


@dataclass(frozen=True)
class Cloud:
    """A place where GPUs are.

    Attributes:
        name: the target's name, such as `runpod`.
        infra: what SkyPilot calls it.
        gpu: kind of GPU, in SkyPilot's words, such as `H100`.
        count: how many in one machine.
        priced: whether it charges by the hour; a cluster of one's own does not.
        autostop: whether the machine can be told to end itself when it is idle.
        credentials: what gives SkyPilot access to it.
    """

    name: str
    infra: str
    gpu: str
    count: int = 1
    priced: bool = True
    autostop: bool = True
    credentials: str = ""

    @property
    def accelerators(self) -> str:
        """GPU and count as SkyPilot reads them."""
        return f"{self.gpu}:{self.count}"

    @property
    def machine(self) -> str:
        """The machine in words."""
        return f"{self.count} x {self.gpu} at {self.name}"


def elsewhere(cloud: Cloud, accelerators: str) -> Target:
    """The target of a cloud.

    Args:
        cloud: with the GPU that is taken when none is named.
        accelerators: `GPU`, `GPU:COUNT`, or empty.

    Raises:
        ConfigError: the count is no number.
    """
    import dataclasses

    from melete.errors import ConfigError

    gpu, colon, count = accelerators.partition(":")
    if colon and not (count.isdecimal() and int(count) > 0):
        raise ConfigError(
            f"gpu: {cloud.name}:{accelerators}: {count!r} is no number of GPUs.",
            allowed=f"Such as {cloud.name}, {cloud.name}:{cloud.gpu} or {cloud.name}:{cloud.gpu}:8.",
        )
    chosen = dataclasses.replace(cloud, gpu=gpu or cloud.gpu, count=int(count or cloud.count))
    return Target(cloud.name, "", f"{chosen.machine}, through SkyPilot", chosen)
