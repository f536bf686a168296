"""Asks upstreams whether they are up, so that no user has to find out.

Registries are asked only while they are down, at the end of their pause: they meter, and one that is up says so with
every answer. Of upstreams that clients are only sent to we see no answer: these are asked now and then (watch.py).
"""

from __future__ import annotations

import asyncio
import logging

from waypost.upstream.client import Client
from waypost.upstream.failure import UpstreamError, UpstreamForbidden
from waypost.upstream.health import Health, retry_after
from waypost.upstream.watch import Watch

logger = logging.getLogger("waypost")

EVERY = 0.5  # seconds between looks at who is to be asked
PATIENCE = 5.0  # seconds for an answer
AT_ONCE = 8  # questions under way at the same time


class Prober:
    """Probes what `health` says is due, and in the worker that has it, `watch`. `asked`: how many probes were sent."""

    def __init__(self, client: Client, health: Health, watch: Watch | None = None) -> None:
        self._client = client
        self._health = health
        self._watch = watch
        self.asked = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """Asks those that are due, as many as may be asked at once."""
        due = self._health.to_probe()[:AT_ONCE]
        probes = [self._ask(host, url) for host, url in due]
        if self._watch is not None:
            probes += [self._look_at(self._watch, host, url) for host, url in self._watch.due(AT_ONCE)]
        await asyncio.gather(*probes)

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

    async def _look_at(self, watch: Watch, host: str, url: str) -> None:
        self.asked += 1
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._client.open("HEAD", url)
        except UpstreamForbidden:
            # A private address that is not declared. Its clients may reach it all the same.
            watch.cannot_tell(host)
            return
        except UpstreamError as error:
            self._lost(watch, host, f"{error.why}.")
            return
        except TimeoutError:
            self._lost(watch, host, "no answer in time.")
            return
        await answer.aclose()
        if answer.status >= 500:
            self._lost(watch, host, f"answers {answer.status}.")
        elif answer.status == 429:
            # It is we who are turned away.
            watch.cannot_tell(host, retry_after(answer.header("retry-after")))
        elif watch.answered(host):
            logger.info("upstream %s answers again", host)

    def _lost(self, watch: Watch, host: str, why: str) -> None:
        if watch.failed(host, why):
            logger.warning("upstream %s is down: %s", host, why)
