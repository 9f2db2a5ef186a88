"""Reports of reconciliation, what they compare, and the account at the supplier."""

from alembic import op

revision = "0004"
down_revision = "0003"

REPORTS = (
    """
    CREATE TABLE reconciliation (
        report_id    text        PRIMARY KEY,
        start_time   timestamptz NOT NULL,
        end_time     timestamptz NOT NULL,
        scheduled    boolean     NOT NULL,
        state        text        NOT NULL CHECK (state IN ('RUNNING', 'DONE', 'FAILED')),
        create_time  timestamptz NOT NULL,
        finish_time  timestamptz,
        run_id       bigint,
        run_at       timestamptz NOT NULL,
        tries        integer     NOT NULL DEFAULT 0,
        counts       jsonb       NOT NULL DEFAULT '{}',
        differences  jsonb       NOT NULL DEFAULT '{}',
        mended_count bigint      NOT NULL DEFAULT 0,
        balance      jsonb,
        failure      text        NOT NULL DEFAULT '',
        CHECK (start_time < end_time)
    )
    """,
    "CREATE INDEX reconciliation_by_time ON reconciliation (create_time DESC, report_id DESC)",
    "CREATE UNIQUE INDEX reconciliation_running ON reconciliation (start_time, end_time) WHERE state = 'RUNNING'",
    "CREATE SEQUENCE reconciliation_run",
    # One row: when the next report of the schedule is due, and up to when its reports have compared everything.
    """
    CREATE TABLE reconciliation_schedule (
        only_one  boolean     PRIMARY KEY DEFAULT true CHECK (only_one),
        next_time timestamptz NOT NULL DEFAULT '-infinity',
        done_time timestamptz
    )
    """,
    "INSERT INTO reconciliation_schedule DEFAULT VALUES",
    """
    CREATE TABLE reconciliation_difference (
        run_id            bigint  NOT NULL,
        position          bigint  GENERATED ALWAYS AS IDENTITY,
        kind              text    NOT NULL,
        subject           text    NOT NULL,
        order_id          text    NOT NULL,
        external_id       text    NOT NULL,
        supplier_order_id text    NOT NULL,
        key_id            text    NOT NULL,
        payment_id        text    NOT NULL,
        expected          text    NOT NULL,
        found             text    NOT NULL,
        mended            boolean NOT NULL DEFAULT false,
        PRIMARY KEY (run_id, kind, subject)
    )
    """,
    "CREATE INDEX reconciliation_difference_in_order ON reconciliation_difference (run_id, position)",
)

# What other services told, copied for one run and gone after it. A crash of the server costs that run only.
STAGES = (
    "CREATE UNLOGGED TABLE stage_run (run_id bigint PRIMARY KEY)",
    """
    CREATE UNLOGGED TABLE stage_purchase (
        run_id            bigint      NOT NULL,
        external_id       text        NOT NULL,
        order_id          text        NOT NULL,
        supplier_order_id text        NOT NULL,
        state             text        NOT NULL,
        supplier_state    text        NOT NULL,
        quantity          integer     NOT NULL,
        charged           bigint,
        return_state      text        NOT NULL,
        create_time       timestamptz NOT NULL,
        PRIMARY KEY (run_id, external_id)
    )
    """,
    "CREATE INDEX stage_purchase_by_time ON stage_purchase (run_id, create_time)",
    """
    CREATE UNLOGGED TABLE stage_surplus (
        run_id            bigint NOT NULL,
        supplier_order_id text   NOT NULL,
        external_id       text   NOT NULL,
        return_state      text   NOT NULL,
        PRIMARY KEY (run_id, supplier_order_id)
    )
    """,
    "CREATE INDEX stage_surplus_by_purchase ON stage_surplus (run_id, external_id)",
    """
    CREATE UNLOGGED TABLE stage_supplier_order (
        run_id            bigint      NOT NULL,
        supplier_order_id text        NOT NULL,
        external_id       text        NOT NULL,
        state             text        NOT NULL,
        charged           bigint,
        refunded          bigint      NOT NULL,
        create_time       timestamptz NOT NULL,
        PRIMARY KEY (run_id, supplier_order_id)
    )
    """,
    "CREATE INDEX stage_supplier_order_by_time ON stage_supplier_order (run_id, create_time)",
    """
    CREATE UNLOGGED TABLE stage_key (
        run_id    bigint      NOT NULL,
        key_id    text        NOT NULL,
        order_id  text        NOT NULL,
        state     text        NOT NULL,
        seal_time timestamptz NOT NULL,
        open_time timestamptz,
        PRIMARY KEY (run_id, key_id)
    )
    """,
    "CREATE INDEX stage_key_by_time ON stage_key (run_id, seal_time)",
    """
    CREATE UNLOGGED TABLE stage_candidate (
        run_id            bigint NOT NULL,
        kind              text   NOT NULL,
        subject           text   NOT NULL,
        order_id          text   NOT NULL,
        external_id       text   NOT NULL,
        supplier_order_id text   NOT NULL,
        key_id            text   NOT NULL,
        PRIMARY KEY (run_id, kind, subject)
    )
    """,
)

ACCOUNT = (
    # One row: what the account must hold by our books, and up to when.
    """
    CREATE TABLE supplier_account (
        only_one   boolean     PRIMARY KEY DEFAULT true CHECK (only_one),
        minor      bigint      NOT NULL,
        open_time  timestamptz NOT NULL,
        close_time timestamptz NOT NULL
    )
    """,
    # What of each supplier order is in the books. `watched` ones may still be paid back.
    """
    CREATE TABLE account_order (
        supplier_order_id text        PRIMARY KEY,
        external_id       text        NOT NULL,
        charged           bigint      NOT NULL,
        refunded          bigint      NOT NULL,
        create_time       timestamptz NOT NULL,
        watched           boolean     NOT NULL DEFAULT false
    )
    """,
    "CREATE INDEX account_order_watched ON account_order (create_time) WHERE watched",
    "CREATE INDEX account_order_by_time ON account_order (create_time)",
    "CREATE INDEX account_order_by_purchase ON account_order (external_id)",
    "CREATE TABLE account_top_up (top_up_id text PRIMARY KEY, minor bigint NOT NULL, top_up_time timestamptz NOT NULL)",
)

# The ways in which a range of time is read, but for those that earlier migrations have indexed.
INDEXES = (
    "CREATE INDEX refund_by_time ON refund (create_time)",
    "CREATE INDEX refund_request_by_time ON refund_request (create_time)",
    "CREATE INDEX purchase_by_place_time ON purchase (place_time) WHERE place_time IS NOT NULL",
    "CREATE INDEX purchase_by_state_time ON purchase (state_time)",
    "CREATE INDEX order_key_by_ready_time ON order_key (ready_time)",
    "CREATE INDEX order_key_by_revoke_time ON order_key (revoke_time) WHERE revoke_time IS NOT NULL",
)

GRANTS = (
    """
    GRANT SELECT, INSERT, UPDATE, DELETE ON
        reconciliation, reconciliation_difference, supplier_account, account_order, account_top_up,
        stage_run, stage_purchase, stage_surplus, stage_supplier_order, stage_key, stage_candidate
        TO fulfillment_service
    """,
    "GRANT SELECT, UPDATE ON reconciliation_schedule TO fulfillment_service",
    "GRANT USAGE ON SEQUENCE reconciliation_run TO fulfillment_service",
)


def upgrade() -> None:
    for statement in (*REPORTS, *STAGES, *ACCOUNT, *INDEXES, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("dropping the account would lose what the balance is explained by")
