"""Sums of many float32 terms, added up in blocks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def add_up(terms: Any, block: int) -> Any:
    """Returns the sums of a tensor over its last axis: first of `block` terms each, then of these sums."""
    *shape, width = terms.shape
    if block < width:
        if missing := -width % block:
            terms = tf.pad(terms, [*([0, 0] for _ in shape), [0, missing]])
        terms = tf.reduce_sum(tf.reshape(terms, [*shape, -1, block]), axis=-1)
    return tf.reduce_sum(terms, axis=-1)
