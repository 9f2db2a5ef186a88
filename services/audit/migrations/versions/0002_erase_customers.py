"""Forgetting a person, and finding what one actor did of one kind."""

from alembic import op

revision = "0002"
down_revision = "0001"

# The service's role may not delete persons: a bug of it would forget everybody. It may call this function, which
# deletes at most what one customer can be found by, and only in the transaction that appends the entry that says so.
ERASURE = (
    """
    CREATE FUNCTION forget_person(asked bytea[], told_at bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF cardinality(asked) > 16 THEN
            RAISE EXCEPTION 'one customer is forgotten at a time' USING ERRCODE = 'insufficient_privilege';
        END IF;
        IF NOT EXISTS (
            SELECT FROM public.entry
            WHERE sequence = told_at AND action = 'customer.erased' AND xmin = pg_current_xact_id()::xid
        ) THEN
            RAISE EXCEPTION 'nobody is forgotten without an entry' USING ERRCODE = 'insufficient_privilege';
        END IF;
        DELETE FROM public.person WHERE lookup = ANY (asked);
    END
    $$
    """,
    "REVOKE ALL ON FUNCTION forget_person FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION forget_person TO audit_service",
)
# One actor (vault, say) has a large share of all entries, and so may an action; together they may have few. As one
# expression, since over two columns the planner takes the index of one of them, and reads all that it has.
SEARCH = ("CREATE INDEX entry_by_actor_and_action ON entry ((actor_id || ' ' || action), sequence)",)


def upgrade() -> None:
    for statement in (*ERASURE, *SEARCH):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the log only grows")
