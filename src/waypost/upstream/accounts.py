"""The operator's own accounts at upstreams: declared ones, and that of AWS for its private registries."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from waypost.routing.decision import Basic
from waypost.upstream.client import Client
from waypost.upstream.declared import AccountError
from waypost.upstream.ecr import EcrLogin, ask_aws, region_of

logger = logging.getLogger("waypost")

# How long, in seconds, a failure to get an account is neither tried again nor told again.
COMPLAINT_SECONDS = 60.0
# AWS gives tokens for 12 hours. This long before the end, in seconds, a new one is asked for.
RENEW_SECONDS = 600.0


class Accounts:
    """Who we are at a host, if the operator has an account there. One per worker.

    A password that cannot be had is told in the log, and the host is asked as nobody: public images stay public.
    """

    def __init__(
        self,
        client: Client,
        ask_aws: Callable[[str], EcrLogin] = ask_aws,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ask_aws`: region → login; it may block. `clock`: seconds since 1970, as AWS counts."""
        self._client = client
        self._ask_aws = ask_aws
        self._clock = clock
        self._logins: dict[str, EcrLogin] = {}
        self._without: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[Basic | None]] = {}

    async def of(self, host: str) -> Basic | None:
        """The account to use at `host`, or None."""
        declared = self._client.declared.get(host)
        has_name = declared is not None and declared.username is not None
        if not has_name and region_of(host) is None:
            return None
        login = self._logins.get(host)
        if login is not None and not has_name and login.until - RENEW_SECONDS > self._clock():
            return login.account
        if self._without.get(host, 0.0) > self._clock():
            return None
        asking = self._asking.get(host)
        if asking is None:
            asking = self._asking[host] = asyncio.create_task(self._ask(host))
            asking.add_done_callback(lambda _: self._asking.pop(host))
        return await asyncio.shield(asking)

    def forget(self) -> None:
        """Declared upstreams have changed."""
        self._logins.clear()
        self._without.clear()

    async def _ask(self, host: str) -> Basic | None:
        declared = self._client.declared.get(host)
        try:
            if declared is not None and declared.username is not None:
                # A file may lie on a disk that does not answer.
                return await asyncio.to_thread(declared.account)
            login = await asyncio.to_thread(self._ask_aws, region_of(host) or "")
        except AccountError as error:
            self._without[host] = self._clock() + COMPLAINT_SECONDS
            logger.warning("no account for upstream %s, which is asked as nobody: %s", host, error)
            return None
        self._logins[host] = login
        return login.account
