package main

import (
	"regexp"
	"strings"
	"sync"
)

// authKeys matches every kind of Tailscale key: control servers like to quote
// the key that they refuse, and errors and logs are read by many.
var authKeys = regexp.MustCompile(`tskey-[A-Za-z0-9_-]+`)

// secrets are the auth keys that nodes were given: those of other control servers
// have no form of their own. They stay for the life of the process, since a log
// line may come after its node's end.
var secrets = struct {
	sync.RWMutex
	known map[string]struct{}
}{known: make(map[string]struct{})}

// keepSecret makes redact know a key. A short one is left out: it would blot out
// innocent text, and protects nothing.
func keepSecret(key string) {
	if len(key) < 8 {
		return
	}
	secrets.Lock()
	defer secrets.Unlock()
	secrets.known[key] = struct{}{}
}

// redact takes the keys out of a text.
func redact(text string) string {
	text = authKeys.ReplaceAllString(text, "tskey-[redacted]")
	secrets.RLock()
	defer secrets.RUnlock()
	for key := range secrets.known {
		text = strings.ReplaceAll(text, key, "[redacted]")
	}
	return text
}
