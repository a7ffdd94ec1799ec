"""What may still be paid is one number: whoever plans by it is not refused, and one query more is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.pooling.places import fresh_ledger
from ttca.errors import QuotaError
from ttca.pooling.booking import Bill, Charge
from ttca.pooling.ledger import Ledger
from ttca.pooling.quotas import Quota
from ttca.pooling.room import member_room
from ttca.pooling.schema import members

RATES = st.none() | st.integers(1, 8)
PAST = st.lists(st.tuples(st.sampled_from(["ada", "ben"]), st.integers(1, 6), st.floats(0, 90)), max_size=6)


def booked(ledger: Ledger, member: str, n: int) -> bool:
    """Try to charge so many queries, and return whether that was allowed."""
    keys = [bytes([i]) * 32 for i in range(n)]
    (done,) = ledger.book([Bill(member, keys, f"r{n}", 1, "pool")], [])
    assert isinstance(done, Charge | QuotaError)
    return isinstance(done, Charge)


@examples(40)
@given(
    quota=st.integers(1, 20),
    cap=st.none() | st.integers(1, 30),
    second=RATES,
    minute=RATES,
    past=PAST,
    lowered=st.none() | st.integers(1, 10),
)
def test_what_the_hub_plans_is_what_the_pool_books(
    quota: int,
    cap: int | None,
    second: int | None,
    minute: int | None,
    past: list[tuple[str, int, float]],
    lowered: int | None,
) -> None:
    """For any quotas, cap, rates and history: the room that leases are cut to can be charged, and no more."""
    now = [1000.0]
    with fresh_ledger(clock=lambda: now[0]) as ledger:
        ada = Quota(quota, per_second=second, per_minute=minute)
        ledger.enrol({"ada": ada, "ben": 20}, cap=cap, overrule=True)
        for member, n, seconds in past:
            booked(ledger, member, n)
            now[0] += seconds
        if lowered is not None:
            ledger.enrol({"ada": ada, "ben": 20}, cap=lowered, overrule=True)
        left = ledger.left()
        assert left.members["ada"] == ledger.balances("ada")[0].remaining
        assert left.total <= sum(left.members.values())
        with ledger.database.engine.connect() as connection:
            row = connection.execute(members.select().where(members.c.name == "ada")).one()
            room = member_room(connection, row, now[0])
        assert not booked(ledger, "ada", max(room, 0) + 1)
        assert room <= 0 or booked(ledger, "ada", room)
