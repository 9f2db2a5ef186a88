"""Orders, payments, purchases, keys by name, mail, and the tables of the chassis."""

from alembic import op
from chassis.tables import create_chassis_tables_v1

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE customer_order (
        order_id       text        PRIMARY KEY,
        customer_id    text        NOT NULL,
        email          text        NOT NULL,
        locale         text        NOT NULL,
        country_code   text        NOT NULL,
        total_currency text        NOT NULL,
        total_minor    bigint      NOT NULL CHECK (total_minor > 0),
        paid_currency  text,
        paid_minor     bigint,
        digest         bytea       NOT NULL,
        state          text        NOT NULL,
        reason         text        NOT NULL DEFAULT '',
        version        bigint      NOT NULL DEFAULT 1,
        create_time    timestamptz NOT NULL,
        update_time    timestamptz NOT NULL,
        pay_time       timestamptz,
        mail_time      timestamptz
    )
    """,
    "CREATE INDEX customer_order_by_time ON customer_order (create_time DESC, order_id DESC)",
    "CREATE INDEX customer_order_by_customer ON customer_order (customer_id, create_time DESC, order_id DESC)",
    "CREATE INDEX customer_order_by_state ON customer_order (state, create_time DESC, order_id DESC)",
    """
    CREATE TABLE order_item (
        order_id       text    NOT NULL REFERENCES customer_order,
        item_id        text    NOT NULL,
        position       integer NOT NULL,
        product_id     text    NOT NULL,
        offer_id       text    NOT NULL,
        quantity       integer NOT NULL CHECK (quantity > 0),
        max_unit_price bigint  NOT NULL CHECK (max_unit_price > 0),
        key_type       text    NOT NULL,
        product_name   text    NOT NULL DEFAULT '',
        PRIMARY KEY (order_id, item_id)
    )
    """,
    # No reference to customer_order: a payment may come before its order.
    """
    CREATE TABLE payment (
        provider     text        NOT NULL,
        payment_id   text        NOT NULL,
        order_id     text        NOT NULL,
        currency     text        NOT NULL,
        minor        bigint      NOT NULL CHECK (minor > 0),
        confirm_time timestamptz NOT NULL,
        create_time  timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (provider, payment_id)
    )
    """,
    "CREATE INDEX payment_by_order ON payment (order_id)",
    """
    CREATE TABLE purchase (
        external_id       text        PRIMARY KEY,
        order_id          text        NOT NULL,
        item_id           text        NOT NULL,
        chunk             integer     NOT NULL,
        attempt           integer     NOT NULL,
        quantity          integer     NOT NULL CHECK (quantity > 0),
        state             text        NOT NULL,
        reason            text        NOT NULL DEFAULT '',
        state_time        timestamptz NOT NULL,
        supplier_order_id text        NOT NULL DEFAULT '',
        place_time        timestamptz,
        refusal           text        NOT NULL DEFAULT '',
        tries             integer     NOT NULL DEFAULT 0,
        run_at            timestamptz,
        lease_until       timestamptz,
        hastened          boolean     NOT NULL DEFAULT false,
        FOREIGN KEY (order_id, item_id) REFERENCES order_item,
        UNIQUE (order_id, item_id, chunk, attempt),
        CONSTRAINT only_what_waits_is_due CHECK (
            run_at IS NULL OR state IN ('PENDING', 'PURCHASING', 'AWAITING_KEYS')
        )
    )
    """,
    "CREATE INDEX purchase_due ON purchase (run_at) WHERE run_at IS NOT NULL",
    """
    CREATE TABLE order_key (
        key_id       text        PRIMARY KEY,
        order_id     text        NOT NULL REFERENCES customer_order,
        item_id      text        NOT NULL,
        external_id  text        NOT NULL REFERENCES purchase,
        content_type text        NOT NULL,
        held         boolean     NOT NULL,
        position     bigint      GENERATED ALWAYS AS IDENTITY,
        ready_time   timestamptz NOT NULL,
        open_time    timestamptz
    )
    """,
    "CREATE INDEX order_key_by_order ON order_key (order_id, position)",
    "CREATE INDEX order_key_by_purchase ON order_key (external_id)",
    """
    CREATE TABLE mail (
        order_id  text        PRIMARY KEY REFERENCES customer_order,
        run_at    timestamptz,
        tries     integer     NOT NULL DEFAULT 0,
        send_time timestamptz,
        failure   text        NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX mail_due ON mail (run_at) WHERE run_at IS NOT NULL",
    """
    GRANT SELECT, INSERT, UPDATE ON customer_order, order_item, payment, purchase, order_key, mail
        TO fulfillment_service
    """,
)


def upgrade() -> None:
    for statement in (*create_chassis_tables_v1("fulfillment_service"), *TABLES):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("dropping orders would lose who paid for what")
