"""Identity federation: get a node's auth key for a cloud's ID token, so that no auth key has to be stored.

Tailscale's API exchanges the ID token for an access token, and that for an auth key. tsnet would do the same,
but only with the AWS SDK compiled in (tailscale.com/feature/identityfederation).
"""
