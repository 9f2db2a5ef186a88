"""Payments, refunds and mails against orders: our own rows only."""
# ruff: noqa: S608 # statements are put together from constants of this package only

from fulfillment.adapters.compared import (
    BACK,
    GOING_BACK,
    GROSS,
    KEY_IDS,
    OPENABLE,
    OUR_PURCHASE_IDS,
    OWED,
    PAID_KEY,
    PAYMENT_KEY,
    PAYMENTS,
    PLACED,
    READY,
    REFUND_KEY,
    REFUNDS,
    REQUESTS,
    Comparison,
)
from fulfillment.domain.reconciliation import Kind

MONEY = (
    Comparison(
        Kind.PAID_WITHOUT_ORDER,
        PAYMENTS,
        PAYMENT_KEY,
        f"""
        SELECT {PAYMENT_KEY}, p.order_id, '', '', '', p.payment_id, 'an order', p.currency || ' ' || p.minor
        FROM payment p
        WHERE NOT EXISTS (SELECT FROM customer_order o WHERE o.order_id = p.order_id) AND p.close_time IS NULL
          AND {{scope}}
        """,
        "unmatched",
    ),
    Comparison(
        Kind.PAID_IN_PART,
        PAYMENTS,
        "p.order_id",
        f"""
        SELECT p.order_id, p.order_id, '', '', '', '', {OWED}, o.total_currency || ' ' || ({GROSS} - {BACK})
        FROM payment p JOIN customer_order o ON o.order_id = p.order_id
        WHERE o.state = 'AWAITING_PAYMENT' AND {GROSS} < o.total_minor AND {GROSS} > {BACK} AND {{scope}}
        """,
        "in_part",
    ),
    Comparison(
        Kind.PAID_TOO_MUCH,
        PAYMENTS,
        "p.order_id",
        f"""
        SELECT p.order_id, p.order_id, '', '', '', '', {OWED}, o.total_currency || ' ' || ({GROSS} - {BACK})
        FROM payment p JOIN customer_order o ON o.order_id = p.order_id
        WHERE {GROSS} - {BACK} > o.total_minor AND {{scope}}
        """,
    ),
    Comparison(
        Kind.PAID_IN_OTHER_CURRENCY,
        PAYMENTS,
        PAYMENT_KEY,
        f"""
        SELECT {PAYMENT_KEY}, p.order_id, '', '', '', p.payment_id, {OWED}, p.currency || ' ' || p.minor
        FROM payment p JOIN customer_order o ON o.order_id = p.order_id
        WHERE p.currency <> o.total_currency AND p.minor > (
            SELECT coalesce(sum(y.minor), 0) FROM refund y
            WHERE y.provider = p.provider AND y.payment_id = p.payment_id AND y.currency = p.currency
        ) AND p.close_time IS NULL AND {{scope}}
        """,
    ),
    Comparison(
        Kind.PAID_NOT_DELIVERED,
        PAYMENTS,
        "p.order_id",
        f"""
        SELECT p.order_id, p.order_id, '', '', '', '', 'a purchase of every line', o.state
        FROM payment p JOIN customer_order o ON o.order_id = p.order_id
        WHERE o.state IN ('AWAITING_PAYMENT', 'PENDING', 'PURCHASING', 'AWAITING_KEYS') AND o.reason = ''
          AND o.cancel_time IS NULL AND {GROSS} - {BACK} >= o.total_minor
          AND EXISTS (
              SELECT FROM order_item i WHERE i.order_id = o.order_id AND NOT EXISTS (
                  SELECT FROM purchase u WHERE u.order_id = i.order_id AND u.item_id = i.item_id
              )
          ) AND {{scope}}
        """,
        "unmatched",
    ),
    Comparison(
        Kind.DELIVERED_NOT_PAID,
        READY,
        "k.order_id",
        f"""
        SELECT k.order_id, k.order_id, '', '', '', '', {OWED}, o.total_currency || ' ' || {GROSS}
        FROM order_key k JOIN customer_order o ON o.order_id = k.order_id
        WHERE {OPENABLE} AND {GROSS} < o.total_minor AND {{scope}}
        """,
    ),
    Comparison(
        Kind.BOUGHT_NOT_PAID,
        PLACED,
        "u.order_id",
        f"""
        SELECT u.order_id, {OUR_PURCHASE_IDS}, {OWED}, o.total_currency || ' ' || {GROSS}
        FROM purchase u JOIN customer_order o ON o.order_id = u.order_id
        WHERE {GROSS} < o.total_minor AND u.state NOT IN {GOING_BACK} AND u.state NOT IN ('CANCELED', 'REFUNDED')
          AND NOT EXISTS (SELECT FROM order_key k WHERE k.order_id = u.order_id AND {OPENABLE}) AND {{scope}}
        """,
    ),
    Comparison(
        Kind.REFUND_WITHOUT_PAYMENT,
        REFUNDS,
        REFUND_KEY,
        f"""
        SELECT {REFUND_KEY}, '', '', '', '', r.payment_id, 'a payment',
               r.currency || ' ' || r.minor
        FROM refund r
        WHERE NOT EXISTS (
            SELECT FROM payment x WHERE x.provider = r.provider AND x.payment_id = r.payment_id
        ) AND {{scope}}
        """,
        "unmatched",
    ),
    Comparison(
        Kind.REFUND_EXCEEDS_PAYMENT,
        REFUNDS,
        PAID_KEY,
        f"""
        SELECT {PAID_KEY}, x.order_id, '', '', '', r.payment_id, x.currency || ' ' || x.minor, r.currency || ' ' || (
            SELECT sum(y.minor) FROM refund y
            WHERE y.provider = r.provider AND y.payment_id = r.payment_id AND y.currency = r.currency
        )
        FROM refund r JOIN payment x ON x.provider = r.provider AND x.payment_id = r.payment_id
        WHERE (r.currency <> x.currency OR x.minor < (
            SELECT sum(y.minor) FROM refund y
            WHERE y.provider = r.provider AND y.payment_id = r.payment_id AND y.currency = x.currency
        )) AND {{scope}}
        """,
    ),
    Comparison(
        Kind.REFUND_REQUEST_UNANSWERED,
        REQUESTS,
        "q.request_id",
        """
        SELECT q.request_id, q.order_id, coalesce(q.external_id, ''), '', '', '', q.currency || ' ' || q.minor,
            'nothing'
        FROM refund_request q WHERE q.answer_time IS NULL AND {scope}
        """,
        "unanswered",
    ),
    Comparison(
        Kind.REFUNDED_BUT_OPENABLE,
        REFUNDS,
        "k.key_id",
        f"""
        SELECT {KEY_IDS}, 'revoked', 'openable'
        FROM refund r
        JOIN payment z ON z.provider = r.provider AND z.payment_id = r.payment_id
        JOIN customer_order o ON o.order_id = z.order_id
        JOIN order_key k ON k.order_id = o.order_id
        JOIN purchase u ON u.external_id = k.external_id
        WHERE {OPENABLE} AND k.open_time IS NULL AND u.state NOT IN {GOING_BACK} AND u.state <> 'NEEDS_ATTENTION'
          AND {GROSS} <= {BACK} AND {{scope}}
        """,
        "taking_back",
    ),
    Comparison(
        Kind.MAIL_NEVER_SENT,
        READY,
        "k.order_id",
        f"""
        SELECT k.order_id, k.order_id, '', '', '', '', 'sent', coalesce(m.failure, '')
        FROM order_key k LEFT JOIN mail m ON m.order_id = k.order_id
        WHERE {OPENABLE} AND m.send_time IS NULL AND {{scope}}
        """,
        "mail",
    ),
)
