"""The devices a model is split over, and what sending between them takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """Devices of one kind.

    Attributes:
        devices: How many.
        memory_bytes: Of each.
        link_bytes_per_second: Between devices of one machine, in one direction, per device.
        network_bytes_per_second: Between machines, likewise.
        per_machine: Devices of one machine.
        launch_seconds: What starting an operator costs, a collective one too.
        link_name: What the vendor calls the link, for people.
    """

    devices: int
    memory_bytes: int
    link_bytes_per_second: float
    network_bytes_per_second: float
    per_machine: int
    launch_seconds: float
    link_name: str

    def bandwidth(self, group: int) -> float:
        """Bytes per second within a group of so many devices: a ring is as fast as its slowest part."""
        if group <= self.per_machine:
            return self.link_bytes_per_second
        return min(self.link_bytes_per_second, self.network_bytes_per_second)

    def all_reduce(self, size: float, group: int, times: int = 1, span: int | None = None) -> float:
        """Seconds to sum `size` bytes over a group, `times` times.

        A ring sends 2 (n - 1) / n of them through each device (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce
        algorithms for clusters of workstations").

        Args:
            size: Bytes on each device.
            group: Devices of the group.
            times: How often.
            span: Devices among which the group is spread, where it does not lie together.
        """
        if group == 1:
            return 0.0
        sent = 2 * (group - 1) / group * size / self.bandwidth(span or group)
        return times * (sent + self.launch_seconds)

    def gather(self, size: float, group: int, times: int = 1, span: int | None = None) -> float:
        """Seconds to gather (or to reduce and scatter) `size` bytes in all over a group: half of a ring all-reduce."""
        if group == 1:
            return 0.0
        return times * ((group - 1) / group * size / self.bandwidth(span or group) + self.launch_seconds)

    def send(self, size: float, times: int, group: int) -> float:
        """Seconds to send `size` bytes to the next device of a group, `times` times."""
        return times * (size / self.bandwidth(group) + self.launch_seconds)
