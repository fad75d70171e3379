"""The page for people: an overview as HTML, without scripts. Pure.

Everything that is shown is untrusted: names come from login providers, audiences and claims from the
tailnet's policy, key ids from a shared JWKS. ``_fill`` escapes each value that is not HTML already.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape as escape_html
from shlex import quote as shell_quote
from string import Template
from typing import TYPE_CHECKING, Final
from urllib.parse import quote as quote_url

import msgspec

from tailbone.config.durations import format_duration
from tailbone.server.responses import Response
from tailbone.text import UNKNOWN, about, escape, moment
from tailbone.token.grants import ANY_AUDIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tailbone.server.overview import KeyLine, Offer, Overview, WhoAmI
    from tailbone.server.probes import State

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #f5f6f8; --card: #fff; --line: #d9dde3; --text: #1b2330; --quiet: #566072;
  --link: #1a56c4; --good: #176b3a; --bad: #a8281c; --code: #eef0f4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161c; --card: #1a2028; --line: #323b48; --text: #e4e8ee; --quiet: #a3adbb;
    --link: #8ab4f8; --good: #6fd39a; --bad: #ff9a8d; --code: #10141a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 60rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; justify-content: space-between; }
header { padding-top: 1rem; }
header p { margin: 0; }
.name { font-weight: 650; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
h3 { font-size: .95rem; margin: 1rem 0 .25rem; }
.lead { margin: 0 0 1.25rem; color: var(--quiet); overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
section { padding: 1rem; margin: 0 0 1rem; }
section > :last-child { margin-bottom: 0; }
a { color: var(--link); }
code, pre { font: .875rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { margin: 0; padding: .6rem .75rem; background: var(--code); border-radius: .4rem; }
pre { white-space: pre-wrap; }
.word { display: inline-block; max-width: 100%; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .35rem 1rem; margin: 0; }
dl, .row { align-items: baseline; }
dt, .quiet { color: var(--quiet); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
ul { list-style: none; margin: 0; padding: 0; }
li + li { border-top: 1px solid var(--line); margin-top: .6rem; padding-top: .6rem; }
.row { display: flex; flex-wrap: wrap; gap: 0 1rem; justify-content: space-between; }
.row > * { min-width: 0; overflow-wrap: anywhere; }
.row .quiet { font-size: .875rem; }
details { font-size: .875rem; margin-top: .15rem; }
summary { color: var(--link); cursor: pointer; }
details pre { margin-top: .35rem; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
footer { color: var(--quiet); font-size: .875rem; padding-bottom: 2rem; }
@media (min-width: 52rem) {
  .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1rem; align-items: start; }
}
"""

_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>You on $host - tailbone</title>
<style>$style</style>
</head>
<body>
<header>
<p><span class="name">tailbone</span> on <bdi>$host</bdi></p>
<p>$state</p>
</header>
<main>
<h1>You are <bdi>$who</bdi></h1>
<p class="lead">This is what your tailnet says about the machine that you use.</p>
<div class="pair">
<section aria-labelledby="you">
<h2 id="you">You</h2>
<dl>$you</dl>
</section>
<section aria-labelledby="offers">
<h2 id="offers">What you may ask for</h2>
$offers
</section>
</div>
$howto
<div class="pair">
<section aria-labelledby="keys">
<h2 id="keys">Signing keys</h2>
$keys
</section>
<section aria-labelledby="server">
<h2 id="server">This server</h2>
<dl>$server</dl>
</section>
</div>
$audit
</main>
<footer>
<p>tailbone $version. This page shows no token and changes nothing. All of it as JSON:
<code>curl -H "Accept: application/json" $url/</code></p>
</footer>
</body>
</html>
""")

_TERM: Final = Template("<dt>$term</dt><dd>$value</dd>\n")
_LIST: Final = Template("<ul>$items</ul>")
_TEXT: Final = Template("<p>$text</p>")
_NAME: Final = Template("<bdi>$text</bdi>")
_CODE: Final = Template("<code>$text</code>")
_GOOD: Final = Template('<span class="good">$text</span>')
_BAD: Final = Template('<span class="bad">$text</span>')
_LINK: Final = Template('<a href="$path">$path</a>')
_LINE: Final = Template("<div>$text</div>")

_REFUSAL: Final = Template('<p><span class="bad">No token:</span> $message (<code>$code</code>)</p>')
_OFFER: Final = Template(
    '<li><div class="row"><span>$audience</span> <span class="quiet">for up to $lifetime</span></div>'
    "<details><summary>What the token says</summary><pre><code>$claims</code></pre></details></li>\n"
)
_NO_OFFER: Final = Template(
    '<li><div>$audience</div><div><span class="bad">Refused:</span> $message (<code>$code</code>)</div>'
    "</li>\n"
)
_MORE: Final = Template('<li class="quiet">and $count more: <code>curl $url/whoami</code></li>\n')

_HOWTO: Final = Template("""<section aria-labelledby="howto">
<h2 id="howto">Get a token</h2>
$ways
</section>""")
_WAY: Final = Template("<h3>$title</h3>\n<pre><code>$command</code></pre>\n")
_WORD: Final = Template('<span class="word">$text</span>')

_AUDIT: Final = Template("""<section aria-labelledby="audit">
<h2 id="audit">Last lines of the audit file</h2>
$lines
</section>""")
_AUDIT_LINE: Final = Template("<li><code>$line</code></li>\n")

_KEY: Final = Template(
    '<li><div class="row"><code>$kid</code> <span class="$tone">$state</span></div>'
    '<div class="row quiet"><span>$about</span> <span>$next</span></div></li>\n'
)

_FIELDS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'sha256-{}'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'".format(
        base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A page of another site must not get it into its process, even unread.
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def page_response(overview: Overview, host: str, now: float) -> Response:
    """Return the answer with the page.

    Args:
        overview: what is shown.
        host: an accepted Host field, by which the caller reaches this server.
        now: Unix time in seconds.
    """
    response = Response(render(overview, host, now).encode(), content_type="text/html; charset=utf-8")
    response.headers.update(_FIELDS)
    return response


def render(overview: Overview, host: str, now: float) -> str:
    """Return the page; see ``page_response``."""
    caller, url = overview.caller, f"http://{host}"
    return _fill(
        _PAGE,
        style=_Html(_STYLE),
        host=host,
        url=url,
        who=caller.user or ", ".join(caller.tags or ()),
        state=_fill(_GOOD, text="ready") if overview.state.ready else _fill(_BAD, text="not ready"),
        you=_you(caller, now),
        offers=_offers(overview, url),
        howto=_howto(caller, url),
        keys=_list(_key(key, now) for key in overview.keys) or _fill(_TEXT, text="No key yet."),
        server=_server(overview),
        audit=_audit(overview.audit),
        version=overview.version,
    )


def _fill(template: Template, **values: str | int) -> _Html:
    """Fill in a template, and escape every value that is not HTML already."""
    return _Html(
        template.substitute(
            {
                name: value if isinstance(value, _Html) else escape_html(str(value))
                for name, value in values.items()
            }
        )
    )


def _join(parts: Iterable[_Html]) -> _Html:
    return _Html("".join(parts))


def _list(items: Iterable[_Html]) -> _Html:
    """Return a list; empty if there are no items."""
    joined = _join(items)
    return _fill(_LIST, items=joined) if joined else joined


def _terms(*pairs: tuple[str, str]) -> _Html:
    """Return terms with their values; those without a value are left out."""
    return _join(_fill(_TERM, term=term, value=value) for term, value in pairs if value)


def _code(text: str) -> _Html:
    return _fill(_CODE, text=escape(text))


def _lines(texts: Iterable[str]) -> _Html:
    return _join(_fill(_LINE, text=text) for text in texts)


def _when(at: int, now: float) -> str:
    """Return a time that is known, and how far away it is."""
    return f"{moment(at)} (in {about(at - now)})" if at > now else f"{moment(at)} ({about(now - at)} ago)"


def _you(caller: WhoAmI, now: float) -> _Html:
    expiry = "never expires" if caller.key_expires_at is None else _when(caller.key_expires_at, now)
    return _terms(
        ("Name", _fill(_NAME, text=caller.display_name) if caller.display_name else ""),
        ("Subject", _code(caller.sub)),
        ("Tags", _lines(map(_code, caller.tags)) if caller.tags else ""),
        ("Node", _fill(_NAME, text=caller.node)),
        ("Node id", _code(caller.node_id)),
        ("Addresses", _lines(map(_code, caller.addresses))),
        ("Node key", _fill(_BAD, text="expired") if caller.expired else expiry),
        ("Shared", "shared in from another tailnet" if caller.shared else ""),
        ("Admin roles", ", ".join(caller.roles) or "none"),
    )


def _offers(overview: Overview, url: str) -> _Html:
    caller = overview.caller
    if caller.refusal is not None:
        return _fill(_REFUSAL, message=caller.refusal.message, code=caller.refusal.error)
    items = [_offer(offer) for offer in overview.offers]
    if more := len(caller.audiences) + caller.without_audience - len(items):
        items.append(_fill(_MORE, count=more, url=url))
    return _list(items)


def _offer(offer: Offer) -> _Html:
    if offer.audience is None:
        audience: str = "a token without an audience"
    elif offer.audience == ANY_AUDIENCE:
        audience = "any other audience"
    else:
        audience = _code(offer.audience)
    if offer.refusal is not None:
        return _fill(_NO_OFFER, audience=audience, message=offer.refusal.message, code=offer.refusal.error)
    text = msgspec.json.format(msgspec.json.encode(offer.claims), indent=2).decode()
    claims = "\n".join(map(escape, text.split("\n")))
    return _fill(_OFFER, audience=audience, lifetime=format_duration(offer.lifetime_s), claims=claims)


def _howto(caller: WhoAmI, url: str) -> _Html:
    """Return the commands that get a token; nothing for a caller who gets none."""
    if caller.refusal is not None:
        return _Html()
    ways = (_fill(_WAY, title=title, command=_words(words)) for title, words in _ways(caller, url))
    return _fill(_HOWTO, ways=_join(ways))


def _ways(caller: WhoAmI, url: str) -> Iterator[tuple[str, list[str]]]:
    """Yield titles and commands, for the first audience that has a name."""
    named = [audience for audience in caller.audiences if audience != ANY_AUDIENCE]
    audience = named[0] if named else "AUDIENCE" if caller.audiences else ""
    query = f"?audience={quote_url(audience, safe='')}" if audience else ""
    option = ["--audience", audience] if audience else []
    yield "With curl", ["curl", "-X", "POST", f"{url}/issue{query}"]
    yield "With tailbone", ["tailbone", "token", "--issuer-url", url, *option]
    if audience:
        yield (
            "For a program that reads it from a variable",
            ["tailbone", "exec", "--issuer-url", url, "--env", f"{audience}=TOKEN", "--", "COMMAND"],
        )


def _words(words: Iterable[str]) -> _Html:
    """Quote words for a shell; lines break between them. One that cannot be typed is shown with escapes."""
    return _Html(" ".join(_fill(_WORD, text=shell_quote(escape(word))) for word in words))


def _key(key: KeyLine, now: float) -> _Html:
    created = moment(key.created_at)
    change = key.next_change
    if change and key.next_change_at:
        change = f"{change} in {about(key.next_change_at - now)}"
    return _fill(
        _KEY,
        kid=key.key_id or "without a kid",
        tone={"active": "good", "faulty": "bad"}.get(key.state, ""),
        state="signs" if key.state == "active" else key.state,
        about=f"{key.algorithm} since {created}" if created != UNKNOWN else key.algorithm,
        next=change,
    )


def _server(overview: Overview) -> _Html:
    return _terms(
        ("Tokens", _state(overview.state)),
        ("Notes", _lines(overview.state.notes)),
        ("Issuer", _code(overview.issuer)),
        ("JWKS", _fill(_LINK, path=overview.jwks)),
        ("Discovery", _fill(_LINK, path=overview.discovery) if overview.discovery else ""),
    )


def _audit(lines: Sequence[str] | None) -> _Html:
    """Return the section with the audit's lines; nothing for callers who may not see them."""
    if lines is None:
        return _Html()
    shown = _list(_fill(_AUDIT_LINE, line=escape(line)) for line in lines)
    return _fill(_AUDIT, lines=shown or _fill(_TEXT, text="No line yet."))


def _state(state: State) -> _Html:
    if state.ready:
        return _fill(_GOOD, text="can be issued")
    return _join([_fill(_BAD, text="cannot be issued now"), _lines(map(_code, state.reasons))])
