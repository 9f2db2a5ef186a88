"""Purchases, here and at kinguin-gateway, against the supplier's own orders."""
# ruff: noqa: S608 # statements are put together from constants of this package only

from fulfillment.adapters.compared import (
    AT_GATEWAY,
    GOING_BACK,
    MOVED,
    OUR_PURCHASE_IDS,
    OURS,
    PLACED,
    THEIR_ORDERS,
    THEIR_PURCHASE_IDS,
    THEIR_PURCHASES,
    UNPAID_BACK,
    Comparison,
)
from fulfillment.domain.reconciliation import Kind


def _overdue(state: str, age: str) -> Comparison:
    return Comparison(
        Kind.PURCHASE_OVERDUE,
        MOVED,
        "u.external_id",
        f"""
        SELECT u.external_id, {OUR_PURCHASE_IDS}, 'moved on', u.state || ' since ' || u.state_time
        FROM purchase u WHERE u.state = '{state}' AND u.reason = '' AND {{scope}}
        """,
        age,
    )


def _refused(age: str) -> Comparison:
    return Comparison(
        Kind.RETURN_REFUSED,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS}, 'taken back', 'refused'
        FROM stage_purchase t
        WHERE (t.return_state = 'REFUSED' OR EXISTS (
            SELECT FROM stage_surplus w
            WHERE w.run_id = :run AND w.external_id = t.external_id AND w.return_state = 'REFUSED'
        )) AND {{scope}}
        """,
        age,
    )


BUYING = (
    _overdue("PENDING", "pending"),
    _overdue("PURCHASING", "purchasing"),
    _overdue("AWAITING_KEYS", "awaiting_keys"),
    Comparison(
        Kind.PURCHASE_UNKNOWN_TO_SUPPLIER_SIDE,
        PLACED,
        "u.external_id",
        f"""
        SELECT u.external_id, {OUR_PURCHASE_IDS}, u.state, 'nothing'
        FROM purchase u LEFT JOIN {AT_GATEWAY}
        WHERE t.external_id IS NULL AND {{scope}}
        """,
    ),
    Comparison(
        Kind.CHUNK_BOUGHT_TWICE,
        PLACED,
        "u.external_id",
        f"""
        SELECT u.external_id, {OUR_PURCHASE_IDS}, 'one purchase', w.external_id || ' too'
        FROM purchase u
        JOIN purchase w ON w.order_id = u.order_id AND w.item_id = u.item_id AND w.chunk = u.chunk
          AND w.attempt < u.attempt
        WHERE u.replaced_key_id IS NULL AND w.replaced_key_id IS NULL AND w.place_time IS NOT NULL
          AND u.state NOT IN {GOING_BACK} AND w.state NOT IN {GOING_BACK}
          AND u.state NOT IN ('CANCELED', 'REFUNDED') AND w.state NOT IN ('CANCELED', 'REFUNDED', 'SUPERSEDED')
          AND {{scope}}
        """,
    ),
    Comparison(
        Kind.PURCHASE_UNKNOWN_TO_US,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS}, 'nothing', t.state
        FROM stage_purchase t
        WHERE t.state IN ('PLACED', 'IN_DOUBT')
          AND NOT EXISTS (SELECT FROM purchase u WHERE u.external_id = t.external_id) AND {{scope}}
        """,
    ),
    Comparison(
        Kind.PURCHASE_STATE_DISAGREES,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS}, u.state || ' ' || u.reason, t.state
        FROM stage_purchase t JOIN purchase u ON u.external_id = t.external_id
        WHERE (
            (t.state = 'PLACED' AND (
                u.state = 'SUPERSEDED' OR u.reason = 'PURCHASE_REFUSED'
                OR (u.state = 'CANCELED' AND u.supplier_order_id = '')
            )) OR (
                t.state = 'REFUSED' AND u.supplier_order_id <> ''
                AND u.state IN ('AWAITING_KEYS', 'READY', 'DELIVERED')
            )
        ) AND {{scope}}
        """,
    ),
    Comparison(
        Kind.QUANTITY_DIFFERS,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS}, CAST(u.quantity AS text), CAST(t.quantity AS text)
        FROM stage_purchase t JOIN purchase u ON u.external_id = t.external_id
        WHERE u.quantity <> t.quantity AND {{scope}}
        """,
    ),
    Comparison(
        Kind.SUPPLIER_ORDER_DIFFERS,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS}, u.supplier_order_id, t.supplier_order_id
        FROM stage_purchase t JOIN purchase u ON u.external_id = t.external_id
        WHERE u.supplier_order_id <> '' AND t.supplier_order_id <> '' AND u.supplier_order_id <> t.supplier_order_id
          AND {{scope}}
        """,
    ),
    Comparison(
        Kind.PRICE_ABOVE_LIMIT,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS},
               'EUR ' || coalesce(u.unit_limit, i.max_unit_price) * t.quantity, 'EUR ' || t.charged
        FROM stage_purchase t
        JOIN purchase u ON u.external_id = t.external_id
        JOIN order_item i ON i.order_id = u.order_id AND i.item_id = u.item_id
        WHERE t.charged > coalesce(u.unit_limit, i.max_unit_price) * t.quantity AND {{scope}}
        """,
    ),
    Comparison(
        Kind.CHARGE_DIFFERS,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS}, 'EUR ' || coalesce(nullif(u.charged, t.charged), t.charged),
               'EUR ' || coalesce(nullif(s.charged, t.charged), t.charged)
        FROM stage_purchase t
        LEFT JOIN purchase u ON u.external_id = t.external_id
        LEFT JOIN stage_supplier_order s ON s.run_id = :run AND s.supplier_order_id = t.supplier_order_id
        WHERE (u.charged <> t.charged OR s.charged <> t.charged) AND {{scope}}
        """,
    ),
    Comparison(
        Kind.SUPPLIER_ORDER_MISSING,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS}, t.supplier_order_id, 'nothing'
        FROM stage_purchase t
        LEFT JOIN stage_supplier_order s ON s.run_id = :run AND s.supplier_order_id = t.supplier_order_id
        WHERE t.state = 'PLACED' AND t.supplier_order_id <> '' AND s.supplier_order_id IS NULL AND {{scope}}
        """,
    ),
    Comparison(
        Kind.SUPPLIER_ORDER_UNKNOWN,
        THEIR_ORDERS,
        "s.supplier_order_id",
        f"""
        SELECT s.supplier_order_id, '', s.external_id, s.supplier_order_id, '', '', 'a purchase',
               coalesce('EUR ' || s.charged, '')
        FROM stage_supplier_order s
        LEFT JOIN stage_purchase t ON t.run_id = :run AND t.external_id = s.external_id
        WHERE s.external_id LIKE {OURS} AND t.external_id IS NULL AND {{scope}}
        """,
    ),
    Comparison(
        Kind.SUPPLIER_ORDER_FOREIGN,
        THEIR_ORDERS,
        "s.supplier_order_id",
        f"""
        SELECT s.supplier_order_id, '', s.external_id, s.supplier_order_id, '', '', 'our reference',
               coalesce('EUR ' || s.charged, '')
        FROM stage_supplier_order s WHERE s.external_id NOT LIKE {OURS} AND {{scope}}
        """,
    ),
    Comparison(
        Kind.BOUGHT_TWICE,
        THEIR_ORDERS,
        "s.supplier_order_id",
        """
        SELECT s.supplier_order_id, t.order_id, s.external_id, s.supplier_order_id, '', '',
               t.supplier_order_id, s.supplier_order_id
        FROM stage_supplier_order s
        JOIN stage_purchase t ON t.run_id = :run AND t.external_id = s.external_id
        WHERE (t.state = 'REFUSED' OR (t.state = 'PLACED' AND t.supplier_order_id NOT IN ('', s.supplier_order_id)))
          AND s.state <> 'REFUNDED' AND NOT EXISTS (
              SELECT FROM stage_surplus w WHERE w.run_id = :run AND w.supplier_order_id = s.supplier_order_id
                AND w.return_state IN ('REFUNDED', 'REFUSED')
          ) AND {scope}
        """,
    ),
    Comparison(
        Kind.CANCELED_NOT_RETURNED,
        MOVED,
        "u.external_id",
        f"""
        SELECT u.external_id, {OUR_PURCHASE_IDS}, 'given back', coalesce(t.supplier_state, '')
        FROM purchase u LEFT JOIN {AT_GATEWAY}
        WHERE u.state IN ('CANCELED', 'REFUNDED') AND u.supplier_order_id <> ''
          AND (:first OR t.state = 'PLACED') AND coalesce(t.return_state, '') = ''
          AND coalesce(t.supplier_state, '') NOT IN ('CANCELED', 'REFUNDED') AND {{scope}}
        """,
        "taking_back",
    ),
    Comparison(
        Kind.RETURN_REFUSED,
        MOVED,
        "u.external_id",
        f"""
        SELECT u.external_id, {OUR_PURCHASE_IDS}, 'taken back', 'refused'
        FROM purchase u WHERE u.state = 'NEEDS_ATTENTION' AND u.reason = 'RETURN_REFUSED' AND {{scope}}
        """,
    ),
    _refused(""),
    _refused("paying_back"),
    Comparison(
        Kind.RETURN_NOT_PAID_BACK,
        THEIR_PURCHASES,
        "t.external_id",
        f"""
        SELECT t.external_id, {THEIR_PURCHASE_IDS}, 'paid back', 'not yet'
        FROM stage_purchase t
        WHERE (t.return_state IN {UNPAID_BACK} OR EXISTS (
            SELECT FROM stage_surplus w
            WHERE w.run_id = :run AND w.external_id = t.external_id AND w.return_state IN {UNPAID_BACK}
        )) AND {{scope}}
        """,
        "paying_back",
    ),
)
