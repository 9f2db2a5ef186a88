"""Fulfillment: carries an order from its payment to keys that its owner can open. Never sees a key."""
