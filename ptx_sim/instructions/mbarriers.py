"""mbarrier: barriers in shared memory that count arrivals and bytes of transfers."""

from __future__ import annotations

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.moves import take_space
from ptx_sim.syntax import Sink
from ptx_sim.threads import Threads


@instruction("mbarrier")
def _(d: Decoding) -> Execute:
    d.category = "mbarrier"
    action = d.choice("init", "inval", "arrive", "expect_tx", "try_wait", "test_wait")
    if action not in ("init", "arrive", "try_wait", "test_wait"):
        raise d.unsupported("an operation that is not modelled")
    expects = d.flag("expect_tx")
    parity = d.flag("parity")
    while d.flag("acquire", "release", "relaxed", "cta", "cluster"):
        pass
    if take_space(d) != "shared":
        raise d.unsupported("only mbarriers named by shared addresses are modelled")
    if not d.flag("b64"):
        raise d.unsupported(".b64 is expected")
    if action == "init":
        return _init(d)
    if action == "arrive":
        return _arrive(d, expects)
    if not parity:
        raise d.unsupported("only waits by parity are modelled")
    return _wait(d, blocking=action == "try_wait")


def _init(d: Decoding) -> Execute:
    (address, _), count = d.address(0), d.source(1, "u32")
    return lambda t: t.batch.transactions.init(t.mask, address(t), np.broadcast_to(count(t), t.count))


def _arrive(d: Decoding, expects: bool) -> Execute:
    if not isinstance(d.operand(0), Sink):
        raise d.unsupported("the state that arriving returns is not modelled")
    address, _ = d.address(1)
    if len(d.operands) != 2 + expects:
        raise d.unsupported("one arrival a thread is modelled")
    size = d.source(2, "u32") if expects else None

    def execute(t: Threads) -> None:
        places = address(t)
        if size is not None:
            t.batch.transactions.expect(t.mask, places, np.broadcast_to(size(t), t.count))
        t.batch.transactions.arrive(t.mask, places)

    return execute


def _wait(d: Decoding, blocking: bool) -> Execute:
    if d.statement.guard is not None:
        raise d.unsupported("a guarded wait is not modelled")
    (address, _), parity = d.address(1), d.source(2, "u32")
    write = d.destination(0, "pred")

    def execute(t: Threads) -> None:
        parities = np.broadcast_to(parity(t), t.count)
        if blocking:
            # nobody wakes before the phase has ended, so what they find is known
            write(t, t.constant(np.bool_(True)))
            t.batch.transactions.wait(t.mask, address(t), parities)
        else:
            t.batch.polled = True
            write(t, t.batch.transactions.completed(t.mask, address(t), parities))

    return execute
