"""Purchases, the keys sealed from them, and the tables of the chassis."""

from alembic import op
from chassis.tables import create_chassis_tables_v1

revision = "0001"
down_revision = None

PURCHASES = (
    """
    CREATE TABLE purchase (
        external_id          text        PRIMARY KEY,
        request_id           text        NOT NULL UNIQUE,
        order_id             text        NOT NULL,
        item_id              text        NOT NULL,
        product_id           text        NOT NULL,
        offer_id             text        NOT NULL,
        quantity             integer     NOT NULL CHECK (quantity > 0),
        max_unit_cents       bigint      NOT NULL CHECK (max_unit_cents > 0),
        key_type             text        NOT NULL,
        state                text        NOT NULL CHECK (state IN ('intended', 'in_doubt', 'placed', 'refused')),
        attempt              integer     NOT NULL CHECK (attempt > 0),
        send_deadline        timestamptz NOT NULL,
        doubt                text        NOT NULL DEFAULT '',
        refusal_kind         text        NOT NULL DEFAULT '',
        refusal_detail       text        NOT NULL DEFAULT '',
        refusal_trace        text        NOT NULL DEFAULT '',
        supplier_order_id    text        UNIQUE,
        supplier_order_state text        CHECK (
            supplier_order_state IN ('processing', 'completed', 'canceled', 'refunded')
        ),
        product_name         text        NOT NULL DEFAULT '',
        charged_cents        bigint,
        delivered_count      integer     NOT NULL DEFAULT 0,
        looks                integer     NOT NULL DEFAULT 0,
        revision             integer     NOT NULL DEFAULT 0,
        lease_end            timestamptz,
        next_look_time       timestamptz,
        create_time          timestamptz NOT NULL DEFAULT now(),
        update_time          timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT placed_means_an_order CHECK ((state = 'placed') = (supplier_order_id IS NOT NULL))
    )
    """,
    "CREATE INDEX purchase_due ON purchase (next_look_time) WHERE next_look_time IS NOT NULL",
    "CREATE INDEX purchase_by_order ON purchase (order_id)",
    """
    CREATE TABLE sealed_key (
        external_id     text        NOT NULL REFERENCES purchase,
        supplier_key_id text        NOT NULL,
        position        bigint      GENERATED ALWAYS AS IDENTITY,
        key_id          text        NOT NULL,
        content_type    text        NOT NULL,
        held            boolean     NOT NULL,
        seal_time       timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (external_id, supplier_key_id)
    )
    """,
    # A purchase that was ever asked for is never forgotten: its row is what keeps it from being bought again.
    "GRANT SELECT, INSERT, UPDATE ON purchase TO kinguin_service",
    "GRANT SELECT, INSERT ON sealed_key TO kinguin_service",
)


def upgrade() -> None:
    for statement in (*create_chassis_tables_v1("kinguin_service"), *PURCHASES):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a purchase that is forgotten may be bought again")
