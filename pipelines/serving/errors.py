"""What a client is told of a request that is not answered with captions."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class RequestError(Exception):
    """A request is refused, or could not be answered.

    Attributes:
      status: of HTTP.
      code: a short name to count by, "queue_full".
      message: what was expected and what was found.
      retry_after_s: when to ask again.
    """

    status: int
    code: str
    message: str
    retry_after_s: int | None = None

    def headers(self) -> dict[str, str]:
        """The headers that the answer has."""
        found = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


class GoneError(Exception):
    """The client has closed the connection: there is nobody to be answered."""
