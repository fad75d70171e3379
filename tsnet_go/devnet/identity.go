package devnet

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"tailscale.com/tailcfg"
)

// identity is who a node becomes by an auth key or an interactive login: a
// user's node, or a tagged node without a user. Exactly one is set.
type identity struct {
	Login       string   `json:"login,omitempty"`
	DisplayName string   `json:"display_name,omitempty"` // "" leaves the user's unchanged
	Tags        []string `json:"tags,omitempty"`
}

func (id identity) tagged() bool { return len(id.Tags) > 0 }

func (id identity) String() string {
	if id.tagged() {
		return strings.Join(id.Tags, ",")
	}
	return id.Login
}

var tagPattern = regexp.MustCompile(`^tag:[a-zA-Z][a-zA-Z0-9-]*$`)

const maxNameBytes = 256

// newIdentity reads the short form ("dev@example.com", "tag:ci") and its
// explicit overrides. The error says what is allowed.
func newIdentity(short, login, displayName string, tags []string) (identity, error) {
	var id identity
	if strings.HasPrefix(short, "tag:") {
		tags = append([]string{short}, tags...)
	} else if login == "" {
		login = short
	}
	for _, t := range tags {
		if !tagPattern.MatchString(t) || len(t) > maxNameBytes {
			return id, fmt.Errorf("%q is not a tag: a tag is tag: and a letter, then letters, digits and dashes", t)
		}
		if !slices.Contains(id.Tags, t) {
			id.Tags = append(id.Tags, t)
		}
	}
	if id.tagged() {
		if login != "" {
			return id, fmt.Errorf("a tagged node has no user: give tags or a login, not both")
		}
		slices.Sort(id.Tags)
		return id, nil
	}
	if !validLogin(login) {
		return id, fmt.Errorf("%q is not a valid identity: use a login such as dev@example.com, or a tag such as tag:ci", login)
	}
	id.Login = login
	id.DisplayName = displayName
	if len(id.DisplayName) > maxNameBytes || !utf8.ValidString(id.DisplayName) {
		return id, fmt.Errorf("display_name is longer than %d bytes or not UTF-8", maxNameBytes)
	}
	return id, nil
}

// validLogin reports whether login has the form of the real service's login names: an
// e-mail address, or name@provider. It refuses control characters and the separators of
// grant selectors.
func validLogin(login string) bool {
	name, domain, ok := strings.Cut(login, "@")
	if !ok || name == "" || domain == "" || strings.Contains(domain, "@") || len(login) > maxNameBytes {
		return false
	}
	return utf8.ValidString(login) && !strings.ContainsFunc(login, func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r) || r == ':' || r == '*' || r == ','
	})
}

// displayNameOf returns "Dev" for dev@example.com.
func displayNameOf(login string) string {
	name, _, _ := strings.Cut(login, "@")
	r, size := utf8.DecodeRuneInString(name)
	return string(unicode.ToUpper(r)) + name[size:]
}

// taggedDevicesLogin is the pseudo user to which the real service gives all
// tagged nodes.
const taggedDevicesLogin = "tagged-devices"

// userIDOf derives a user's id from the login alone, so that it is the same in
// every devnet. 52 bits keep it exact in JSON readers that know only doubles.
func userIDOf(login string) tailcfg.UserID {
	sum := sha256.Sum256([]byte(strings.ToLower(login)))
	return tailcfg.UserID(binary.BigEndian.Uint64(sum[:8])>>12 | 1)
}
