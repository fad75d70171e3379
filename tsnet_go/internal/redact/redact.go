// Package redact removes auth keys from text that leaves the process: errors, log
// lines and events.
package redact

import (
	"regexp"
	"strings"
	"sync"
)

// tailscaleKeys matches every kind of Tailscale key. Control servers tend to quote
// the key that they refuse, and many people read errors and logs.
var tailscaleKeys = regexp.MustCompile(`tskey-[A-Za-z0-9_-]+`)

// secrets holds the auth keys that nodes were given: keys of other control servers
// have no recognizable form. They stay for the life of the process, since a log line
// may arrive after its node was closed.
var secrets = struct {
	sync.RWMutex
	known map[string]struct{}
}{known: make(map[string]struct{})}

// AddSecret makes Text remove key. It ignores short keys: replacing them would
// garble unrelated text, and they protect nothing.
func AddSecret(key string) {
	if len(key) < 8 {
		return
	}
	secrets.Lock()
	defer secrets.Unlock()
	secrets.known[key] = struct{}{}
}

// Text returns text with every auth key replaced.
func Text(text string) string {
	text = tailscaleKeys.ReplaceAllString(text, "tskey-[redacted]")
	secrets.RLock()
	defer secrets.RUnlock()
	for key := range secrets.known {
		text = strings.ReplaceAll(text, key, "[redacted]")
	}
	return text
}
