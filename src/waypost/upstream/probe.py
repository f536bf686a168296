"""Asks registries that are down whether they are back, so that no user has to find out.

Only those that are down are asked, at the end of their pause: registries meter, and one that is up says so with
every answer.
"""

from __future__ import annotations

import asyncio
import logging

from waypost.upstream.client import Client
from waypost.upstream.failure import UpstreamError
from waypost.upstream.health import Health, retry_after

logger = logging.getLogger("waypost")

EVERY = 0.5  # seconds between looks at who is to be asked
PATIENCE = 5.0  # seconds for an answer
AT_ONCE = 8  # questions under way at the same time


class Prober:
    """Probes what `health` says is due. `asked`: how many probes were sent."""

    def __init__(self, client: Client, health: Health) -> None:
        self._client = client
        self._health = health
        self.asked = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """Asks those that are due, as many as may be asked at once."""
        due = self._health.to_probe()[:AT_ONCE]
        await asyncio.gather(*(self._ask(host, url) for host, url in due))

    async def _ask(self, host: str, url: str) -> None:
        self.asked += 1
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._client.open("GET", url)
        except UpstreamError as error:
            self._health.stays_down(host, f"{error.why}.")
            return
        except TimeoutError:
            self._health.stays_down(host, "no answer in time.")
            return
        await answer.aclose()
        # OCI distribution specification, "Determining Support": 200, or 401 where a token is wanted. Others answer
        # otherwise and serve all the same. What would be no failure of a request is none of a probe.
        if answer.status == 429 or answer.status >= 500:
            self._health.stays_down(host, f"answers {answer.status}.", retry_after(answer.header("retry-after")))
        elif self._health.came_back(host):
            logger.info("upstream %s answers again", host)
