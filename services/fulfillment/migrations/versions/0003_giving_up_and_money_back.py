"""Plans, lanes and claims of purchases, keys that are taken back, refunds, and what the shop is asked to pay back.

All migrations of a deployment are one transaction, so that nothing here can be built beside the service's work. What
takes long comes before what keeps readers out as well; columns have constant defaults, which rewrite nothing.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

# These hold up writers of payments for as long as they take, and readers not at all.
PAYMENT_INDEXES = ("CREATE INDEX payment_by_time ON payment (create_time DESC, provider DESC, payment_id DESC)",)

TABLES = (
    # No reference to payment: a refund may come before its payment.
    """
    CREATE TABLE refund (
        provider      text        NOT NULL,
        refund_id     text        NOT NULL,
        payment_id    text        NOT NULL,
        currency      text        NOT NULL,
        minor         bigint      NOT NULL CHECK (minor > 0),
        refund_time   timestamptz NOT NULL,
        item_ids      text[]      NOT NULL DEFAULT '{}',
        request_ids   text[]      NOT NULL DEFAULT '{}',
        is_chargeback boolean     NOT NULL DEFAULT false,
        apply_time    timestamptz,
        create_time   timestamptz NOT NULL,
        PRIMARY KEY (provider, refund_id)
    )
    """,
    "CREATE INDEX refund_by_payment ON refund (provider, payment_id)",
    "CREATE INDEX refund_pending ON refund (create_time) WHERE apply_time IS NULL",
    """
    CREATE TABLE refund_request (
        request_id  text        PRIMARY KEY,
        order_id    text        NOT NULL REFERENCES customer_order,
        item_id     text,
        external_id text        REFERENCES purchase,
        quantity    integer     NOT NULL CHECK (quantity >= 0),
        currency    text        NOT NULL,
        minor       bigint      NOT NULL CHECK (minor >= 0),
        reason      text        NOT NULL,
        position    bigint      GENERATED ALWAYS AS IDENTITY,
        answer_time timestamptz,
        create_time timestamptz NOT NULL
    )
    """,
    "CREATE INDEX refund_request_by_order ON refund_request (order_id, position)",
    "GRANT SELECT, INSERT, UPDATE ON refund, refund_request TO fulfillment_service",
)

COLUMNS = (
    """
    ALTER TABLE customer_order
        ADD COLUMN refunded_currency text,
        ADD COLUMN refunded_minor    bigint,
        ADD COLUMN cancel_time       timestamptz
    """,
    "ALTER TABLE order_item ADD COLUMN unit_price bigint",
    """
    ALTER TABLE order_key
        ADD COLUMN revoke_time  timestamptz,
        ADD COLUMN replace_time timestamptz
    """,
    "ALTER TABLE mail ADD COLUMN again_times timestamptz[] NOT NULL DEFAULT '{}'",
    """
    ALTER TABLE purchase
        ADD COLUMN customer_id       text     NOT NULL DEFAULT '',
        ADD COLUMN offer_id          text     NOT NULL DEFAULT '',
        ADD COLUMN unit_limit        bigint,
        ADD COLUMN replaced_key_id   text,
        ADD COLUMN is_preorder       boolean  NOT NULL DEFAULT false,
        ADD COLUMN release_time      timestamptz,
        ADD COLUMN charged           bigint,
        ADD COLUMN give_up           text     NOT NULL DEFAULT '',
        ADD COLUMN canceled_quantity integer  NOT NULL DEFAULT 0,
        ADD COLUMN lane              smallint NOT NULL DEFAULT 0,
        ADD COLUMN claim             bigint   NOT NULL DEFAULT 0,
        DROP CONSTRAINT only_what_waits_is_due,
        -- What is there obeys it, as it obeyed the narrower one: there is nothing to validate.
        ADD CONSTRAINT only_what_waits_is_due CHECK (
            run_at IS NULL OR state IN (
                'PENDING', 'PURCHASING', 'AWAITING_KEYS', 'WITHDRAWING', 'REVOKING', 'RETURNING', 'SHREDDING'
            )
        ) NOT VALID
    """,
    # Those that are there have their orders, but for the few below; the version before knows no other.
    "ALTER TABLE payment ADD COLUMN is_matched boolean NOT NULL DEFAULT true",
    "ALTER TABLE payment ALTER COLUMN is_matched SET DEFAULT false",
)

# Of what waits alone, and therefore small.
SMALL_INDEXES = (
    "CREATE INDEX purchase_due_by_lane ON purchase (lane, run_at) WHERE run_at IS NOT NULL",
    "DROP INDEX purchase_due",
    # It carries its customer because no state of an order tells whether one of its purchases still waits.
    "CREATE INDEX purchase_waiting ON purchase (customer_id) WHERE state IN ('PENDING', 'PURCHASING')",
    """
    CREATE INDEX payment_unmatched ON payment (create_time DESC, provider DESC, payment_id DESC) WHERE NOT is_matched
    """,
)

ROWS = (
    # These were sent, or may have been, with the limit and the offer of their item. The supplier's side refuses another
    # body under the same reference, so that they must never be planned anew. Finished ones are many, and stay.
    """
    UPDATE purchase SET unit_limit = item.max_unit_price, offer_id = item.offer_id
    FROM order_item AS item
    WHERE item.order_id = purchase.order_id AND item.item_id = purchase.item_id
        AND purchase.state IN ('PURCHASING', 'AWAITING_KEYS', 'NEEDS_ATTENTION')
    """,
    """
    UPDATE purchase SET customer_id = customer_order.customer_id
    FROM customer_order
    WHERE customer_order.order_id = purchase.order_id
        AND purchase.state IN ('PENDING', 'PURCHASING', 'NEEDS_ATTENTION')
    """,
    """
    UPDATE payment SET is_matched = false
    WHERE NOT EXISTS (SELECT FROM customer_order WHERE customer_order.order_id = payment.order_id)
    """,
)


def upgrade() -> None:
    for statement in (*PAYMENT_INDEXES, *TABLES, *COLUMNS, *SMALL_INDEXES, *ROWS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("dropping it would lose what was paid back and what is bought for how much")
