"""Which split a problem belongs to: by the hash of its content, so no two splits share one."""

from collections.abc import Mapping


def split_of(key: str, shares: Mapping[str, int]) -> str:
    """The split that the hash of a problem's content falls into.

    >>> split_of("00000007", {"tune": 6, "select": 2, "test": 2})
    'select'

    Args:
        key: hex digits (`probes.records.content_hash`); the first eight count.
        shares: whole numbers of each split, in their order.
    """
    bucket = int(key[:8], 16) % sum(shares.values())
    for split, share in shares.items():
        if bucket < share:
            return split
        bucket -= share
    raise AssertionError("the shares cover every bucket")
