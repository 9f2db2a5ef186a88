"""Keys, by name: ours against what was bought, and against vault's."""
# ruff: noqa: S608 # statements are put together from constants of this package only

from fulfillment.adapters.compared import (
    AT_VAULT,
    GOING_BACK,
    KEY_IDS,
    MOVED,
    OPENABLE,
    OUR_PURCHASE_IDS,
    READY,
    REVOKED,
    THEIR_KEYS,
    Comparison,
    Source,
)
from fulfillment.domain.reconciliation import Kind


def _state_disagrees(source: Source) -> Comparison:
    return Comparison(
        Kind.KEY_STATE_DISAGREES,
        source,
        "k.key_id",
        f"""
        SELECT {KEY_IDS},
               CASE WHEN k.held THEN 'held' WHEN k.revoke_time IS NULL THEN 'openable' ELSE 'revoked' END,
               coalesce(v.state, '')
        FROM order_key k
        JOIN purchase u ON u.external_id = k.external_id
        LEFT JOIN {AT_VAULT}
        WHERE (
            (:first AND v.key_id IS NULL AND k.revoke_time IS NOT NULL)
            OR (k.revoke_time IS NOT NULL AND v.state = 'SEALED')
            OR ({OPENABLE} AND u.state NOT IN {GOING_BACK} AND (
                v.state IN ('REVOKED', 'HELD') OR (v.state = 'SHREDDED' AND k.open_time IS NULL)
            ))
        ) AND {{scope}}
        """,
    )


KEYS = (
    Comparison(
        Kind.KEYS_FEWER_THAN_BOUGHT,
        MOVED,
        "u.external_id",
        f"""
        SELECT u.external_id, {OUR_PURCHASE_IDS}, CAST(u.quantity - u.canceled_quantity AS text), CAST(c.count AS text)
        FROM purchase u
        CROSS JOIN LATERAL (
            SELECT count(*) FROM order_key k WHERE k.external_id = u.external_id AND NOT k.held
        ) c
        WHERE u.state IN ('READY', 'DELIVERED') AND c.count < u.quantity - u.canceled_quantity AND {{scope}}
        """,
    ),
    Comparison(
        Kind.KEYS_MORE_THAN_BOUGHT,
        READY,
        "k.external_id",
        f"""
        SELECT k.external_id, {OUR_PURCHASE_IDS}, CAST(u.quantity AS text), CAST(c.count AS text)
        FROM order_key k
        JOIN purchase u ON u.external_id = k.external_id
        CROSS JOIN LATERAL (
            SELECT count(*) FROM order_key n WHERE n.external_id = u.external_id AND NOT n.held
        ) c
        WHERE c.count > u.quantity AND {{scope}}
        """,
    ),
    Comparison(
        Kind.KEY_MISSING_AT_VAULT,
        READY,
        "k.key_id",
        f"""
        SELECT {KEY_IDS}, 'a key', 'nothing'
        FROM order_key k LEFT JOIN {AT_VAULT}
        WHERE v.key_id IS NULL AND {{scope}}
        """,
    ),
    Comparison(
        Kind.KEY_UNKNOWN_TO_ORDER,
        THEIR_KEYS,
        "v.key_id",
        """
        SELECT v.key_id, v.order_id, '', '', v.key_id, '', 'nothing', v.state
        FROM stage_key v
        WHERE v.state IN ('SEALED', 'HELD')
          AND NOT EXISTS (SELECT FROM order_key k WHERE k.key_id = v.key_id) AND {scope}
        """,
    ),
    Comparison(
        Kind.KEY_NEVER_SEALED,
        THEIR_KEYS,
        "v.key_id",
        """
        SELECT v.key_id, v.order_id, '', '', v.key_id, '', 'SEALED', v.state
        FROM stage_key v WHERE v.state = 'SEALING' AND {scope}
        """,
    ),
    Comparison(
        Kind.KEY_OF_ANOTHER_ORDER,
        THEIR_KEYS,
        "v.key_id",
        f"""
        SELECT {KEY_IDS}, k.order_id, v.order_id
        FROM stage_key v JOIN order_key k ON k.key_id = v.key_id
        WHERE k.order_id <> v.order_id AND {{scope}}
        """,
    ),
    _state_disagrees(READY),
    _state_disagrees(REVOKED),
    Comparison(
        Kind.OPENED_NOT_NOTED,
        READY,
        "k.key_id",
        f"""
        SELECT {KEY_IDS}, 'not opened', 'opened ' || v.open_time
        FROM order_key k JOIN {AT_VAULT}
        WHERE k.open_time IS NULL AND v.open_time < :cutoff AND {{scope}}
        """,
    ),
    # Opened long after it was sealed: vault's list by time does not show it again, so every key that we think unopened
    # is asked about once, when it has been for long.
    Comparison(
        Kind.OPENED_NOT_NOTED,
        READY,
        "k.key_id",
        f"""
        SELECT {KEY_IDS}, 'not opened', coalesce('opened ' || v.open_time, '')
        FROM order_key k LEFT JOIN {AT_VAULT}
        WHERE k.open_time IS NULL AND {OPENABLE}
          AND ((:first AND v.key_id IS NULL) OR v.open_time < :cutoff) AND {{scope}}
        """,
        "never_opened",
    ),
    Comparison(
        Kind.NOTED_NOT_OPENED,
        READY,
        "k.key_id",
        f"""
        SELECT {KEY_IDS}, 'opened ' || k.open_time, 'not opened'
        FROM order_key k JOIN {AT_VAULT}
        WHERE k.open_time IS NOT NULL AND v.open_time IS NULL AND v.state = 'SEALED' AND {{scope}}
        """,
    ),
    Comparison(
        Kind.KEY_NEVER_OPENED,
        READY,
        "k.key_id",
        f"""
        SELECT {KEY_IDS}, 'opened', 'never since ' || k.ready_time
        FROM order_key k LEFT JOIN {AT_VAULT}
        WHERE k.open_time IS NULL AND k.replace_time IS NULL AND {OPENABLE}
          AND (:first OR (v.open_time IS NULL AND v.state = 'SEALED')) AND {{scope}}
        """,
        "never_opened",
    ),
)
