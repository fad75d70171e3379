"""The minimal policy that ``tailbone policy example`` prints."""

from typing import Final

EXAMPLE: Final = """\
// Lets CI machines ask tailbone for tokens for AWS, and the tailnet's admins manage its keys.
// Set issuer.access and admin.access of the server to "grant", so that these rules alone decide.
{
  "tagOwners": {
    "tag:tailbone": ["autogroup:admin"],
    "tag:ci": ["autogroup:admin"],
  },
  "grants": [
    {
      "src": ["tag:ci"],
      "dst": ["tag:tailbone"],
      "ip": ["tcp:80"],
      "app": {
        "tailbone.dev/cap/token": [
          {"audiences": ["sts.amazonaws.com"], "ttl": "15m", "groups": ["deployers"]},
        ],
      },
    },
    {
      "src": ["autogroup:admin"],
      "dst": ["tag:tailbone"],
      "ip": ["tcp:50051"],
      "app": {"tailbone.dev/cap/admin": [{"roles": ["admin"]}]},
    },
  ],
}
"""
