"""The peers: what is measured, each behind the protocol of `peers.protocol`."""
