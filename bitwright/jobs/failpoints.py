"""Named places where a test may kill the process: between a commit and what follows it, say. Nothing happens otherwise.

    BITWRIGHT_TEST_FAILPOINT=accepted-before-answer bitwright serve

ends the server with SIGKILL at that place. The tests walk through all names.
"""

from __future__ import annotations

import os
import signal

ACCEPTED_BEFORE_ANSWER = "accepted-before-answer"
CLAIMED_BEFORE_CHILD = "claimed-before-child"
DONE_BEFORE_STORED = "done-before-stored"
STORED_BEFORE_NEXT = "stored-before-next"
PUBLISHED_BEFORE_MARKED = "published-before-marked"
TAKEN_BEFORE_PUBLISHED = "taken-before-published"
SENT_BEFORE_SETTLED = "sent-before-settled"
#: Those of the API, of every worker, of a worker with a broker, and of the webhook sender.
API = (ACCEPTED_BEFORE_ANSWER,)
WORKER = (CLAIMED_BEFORE_CHILD, DONE_BEFORE_STORED, STORED_BEFORE_NEXT)
RELAY = (TAKEN_BEFORE_PUBLISHED, PUBLISHED_BEFORE_MARKED)
WEBHOOKS = (SENT_BEFORE_SETTLED,)
_VARIABLE = "BITWRIGHT_TEST_FAILPOINT"


def failpoint(name: str) -> None:
    """Die here if the environment says so."""
    if os.environ.get(_VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
