"""What a server can do to us, by type: refuse for good, be another, or stay away too long."""

from probes.records import Refusal


class ServerRefused(Refusal):
    """The server will never answer this: an unknown model, a prompt too long, a bad address."""


class WrongKey(ServerRefused):
    """The server wants a key, or another one."""


class AnotherModel(ServerRefused):
    """The server serves another model than the one asked for, or an answer shows that it does."""


class NoLogprobs(ServerRefused):
    """Log-probabilities were required, and the server gives none."""


class ServerUnavailable(RuntimeError):
    """No whole answer after all tries. What is finished is kept; later the rest may be had."""


class Unspoken(ServerRefused):
    """The server doesn't accept some word of a request: never seen outside of this package."""


class Passing(Exception):
    """A failure that another try may mend: never seen outside of this package."""

    def __init__(self, what: str, after: float | None = None) -> None:
        """Say what happened.

        Args:
            what: for the message, should it not pass.
            after: seconds that the server asked us to wait.
        """
        super().__init__(what)
        self.after = after
