"""Returns and surplus orders, the switch of buying, the shared pace, webhooks, products and the account's money."""

from alembic import op

revision = "0002"
down_revision = "0001"

PURCHASES = (
    """
    ALTER TABLE purchase
        ADD COLUMN park_time      timestamptz,
        ADD COLUMN verify_time    timestamptz,
        ADD COLUMN release_time   timestamptz,
        ADD COLUMN canceled_count integer NOT NULL DEFAULT 0
    """,
    "CREATE INDEX purchase_parked ON purchase (create_time, external_id) WHERE park_time IS NOT NULL",
    "CREATE INDEX purchase_to_verify ON purchase (verify_time) WHERE verify_time IS NOT NULL",
    "CREATE INDEX purchase_unsettled ON purchase (state) WHERE state IN ('intended', 'in_doubt')",
    "CREATE INDEX purchase_by_age ON purchase (create_time, external_id)",
    """
    ALTER TABLE sealed_key
        ADD COLUMN state text NOT NULL DEFAULT 'DELIVERED' CHECK (
            state IN ('PENDING', 'PROCESSING', 'DELIVERED', 'RETURNED', 'REFUNDED', 'CANCELED')
        )
    """,
    # Its keys stay where they are; only their state at the supplier moves.
    "GRANT UPDATE (state) ON sealed_key TO kinguin_service",
)

# The supplier takes one return of an order, ever (K49): a row here is that one, also of orders bought too much.
RETURNS = (
    """
    CREATE TABLE key_return (
        supplier_order_id text        PRIMARY KEY,
        external_id       text        NOT NULL REFERENCES purchase,
        surplus           boolean     NOT NULL,
        request_id        text        UNIQUE,
        state             text        NOT NULL CHECK (
            state IN ('asked', 'accepted', 'returned', 'refunded', 'refused')
        ),
        returned_count    integer     NOT NULL DEFAULT 0,
        refunded_count    integer     NOT NULL DEFAULT 0,
        refusal_kind      text        NOT NULL DEFAULT '',
        refusal_detail    text        NOT NULL DEFAULT '',
        refusal_trace     text        NOT NULL DEFAULT '',
        sent_count        integer     NOT NULL DEFAULT 0,
        looks             integer     NOT NULL DEFAULT 0,
        lease_end         timestamptz,
        next_look_time    timestamptz,
        create_time       timestamptz NOT NULL DEFAULT now(),
        update_time       timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX key_return_due ON key_return (next_look_time) WHERE next_look_time IS NOT NULL",
    "CREATE INDEX key_return_by_purchase ON key_return (external_id)",
    "GRANT SELECT, INSERT, UPDATE ON key_return TO kinguin_service",
)

# One row each, made here and never deleted.
SWITCHES = (
    """
    CREATE TABLE buying (
        only_row      boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
        cause         text        NOT NULL DEFAULT '' CHECK (
            cause IN ('', 'operator', 'insufficient_balance', 'unauthorized')
        ),
        reason        text        NOT NULL DEFAULT '',
        change_time   timestamptz NOT NULL DEFAULT now(),
        incarnation   text        NOT NULL DEFAULT '',
        doubt_end     timestamptz NOT NULL DEFAULT 'epoch',
        caution_end   timestamptz NOT NULL DEFAULT 'epoch'
    )
    """,
    "INSERT INTO buying DEFAULT VALUES",
    "GRANT SELECT, UPDATE ON buying TO kinguin_service",
    """
    CREATE TABLE call_schedule (
        only_row  boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
        next_time timestamptz NOT NULL DEFAULT 'epoch'
    )
    """,
    "INSERT INTO call_schedule DEFAULT VALUES",
    "GRANT SELECT, UPDATE ON call_schedule TO kinguin_service",
)

WEBHOOKS = (
    """
    CREATE TABLE webhook (
        webhook_id        uuid        PRIMARY KEY,
        event_id          text        NOT NULL UNIQUE,
        event_name        text        NOT NULL,
        supplier_order_id text        NOT NULL,
        external_id       text        NOT NULL,
        status            text        NOT NULL,
        product_id        text        NOT NULL,
        updated_at        text        NOT NULL,
        told_time         timestamptz,
        receive_time      timestamptz NOT NULL,
        outcome           text        NOT NULL CHECK (outcome IN ('hurried', 'unrelated', 'stale')),
        replay_time       timestamptz,
        body_sha256       bytea       NOT NULL
    )
    """,
    "CREATE INDEX webhook_by_age ON webhook (receive_time DESC, webhook_id DESC)",
    "CREATE INDEX webhook_by_order ON webhook (supplier_order_id, told_time DESC) WHERE supplier_order_id <> ''",
    "CREATE INDEX webhook_by_reference ON webhook (external_id, receive_time DESC) WHERE external_id <> ''",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON webhook TO kinguin_service",
    """
    CREATE TABLE product (
        product_id     text        PRIMARY KEY,
        price_cents    bigint,
        available      integer     NOT NULL DEFAULT 0,
        told_time      timestamptz,
        read_time      timestamptz,
        lease_end      timestamptz,
        next_read_time timestamptz,
        create_time    timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX product_due ON product (next_read_time) WHERE next_read_time IS NOT NULL",
    "GRANT SELECT, INSERT, UPDATE ON product TO kinguin_service",
    "INSERT INTO product (product_id) SELECT DISTINCT product_id FROM purchase",
)

ACCOUNT = (
    """
    CREATE TABLE balance_reading (
        read_time     timestamptz PRIMARY KEY,
        balance_cents bigint      NOT NULL
    )
    """,
    "GRANT SELECT, INSERT, DELETE ON balance_reading TO kinguin_service",
    """
    CREATE TABLE top_up (
        top_up_id    uuid        PRIMARY KEY,
        amount_cents bigint      NOT NULL CHECK (amount_cents <> 0),
        top_up_time  timestamptz NOT NULL,
        reference    text        NOT NULL,
        create_time  timestamptz NOT NULL DEFAULT now()
    )
    """,
    "GRANT SELECT, INSERT ON top_up TO kinguin_service",
)


def upgrade() -> None:
    for statement in (*PURCHASES, *RETURNS, *SWITCHES, *WEBHOOKS, *ACCOUNT):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("an order that was bought too much would be forgotten")
